package squashfs

// Coding is how the blocks of an image are compressed. Together with the content
// of the tree it determines the image's bytes.
type Coding struct {
	Codec     Codec
	Version   string // the library and its version
	Level     int
	BlockSize int // in bytes
}

// Coding returns what the options stand for, with defaults filled in.
func (o WriteOptions) Coding() (Coding, error) {
	spec, err := o.complete()
	if err != nil {
		return Coding{}, err
	}
	return Coding{spec.codec, spec.version, spec.level, spec.blockSize}, nil
}
