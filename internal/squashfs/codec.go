package squashfs

import (
	"fmt"

	"uenv-ci.dev/internal/fault"
)

// The versions of the modules that compress, which are those in go.mod: another
// version may write other bytes. A test compares them.
const (
	klauspostVersion = "v1.20.2"
	libzstdVersion   = "v1.5.7" // of libzstd itself too
)

// Codec is how the blocks of an image are compressed.
type Codec int

// The codecs. Zstd, Gzip and None can be written; all but Lzma can be read.
const (
	Zstd Codec = iota
	Gzip
	None // blocks are stored; the image names gzip as its compressor
	Xz
	Lz4
	Lzo
	Lzma
)

var codecNames = [...]string{Zstd: "zstd", Gzip: "gzip", None: "none", Xz: "xz", Lz4: "lz4", Lzo: "lzo", Lzma: "lzma"}

// compressorIDs are the numbers of the codecs in a superblock.
var compressorIDs = [...]uint16{Zstd: 6, Gzip: 1, None: 1, Xz: 4, Lz4: 5, Lzo: 3, Lzma: 2}

// String returns the codec's name as mksquashfs -comp takes it, or "none".
func (c Codec) String() string {
	if c < 0 || int(c) >= len(codecNames) {
		return fmt.Sprintf("codec %d", int(c))
	}
	return codecNames[c]
}

// MarshalText implements encoding.TextMarshaler.
func (c Codec) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// ParseCodec returns the codec of that name, if it is one that can be written.
// The error's kind is Usage.
func ParseCodec(name string) (Codec, error) {
	for _, c := range []Codec{Zstd, Gzip, None} {
		if c.String() == name {
			return c, nil
		}
	}
	return 0, fault.New(fault.Usage, "codec %q is not one of zstd, gzip, none", name)
}

func codecOf(id uint16) (Codec, error) {
	for c, n := range compressorIDs {
		if n == id && Codec(c) != None {
			return Codec(c), nil
		}
	}
	return 0, fmt.Errorf("compressor %d is not known", id)
}

// encoder compresses blocks, one at a time. It is not for concurrent use.
type encoder interface {
	// encode compresses src, using dst[:0] for the result if it is large
	// enough. A result that is not shorter than src is of no use.
	encode(dst, src []byte) ([]byte, error)
	// decode undoes that, as decoder.decode does. It is for what encode made, not
	// for input that may be hostile.
	decode(dst, src []byte) (int, error)
	close()
}

// encoderSpec says all that the bytes of a codec depend on.
type encoderSpec struct {
	codec     Codec
	level     int
	blockSize int
	version   string // the library and its version, and how it is used
	open      func() (encoder, error)

	openTables func() (encoder, error) // for tables: there is little of them, so they can have more time
}

// tableLevel is the zstd level of tables at the least. With 100,000 small files it makes
// them 4 % smaller than level 3 does, for 2 % of the time to pack.
const tableLevel = 5

// String returns what Summary.Compressor tells of an image packed so.
func (s encoderSpec) String() string {
	return Summary{Codec: s.codec.String(), CodecVersion: s.version, Level: s.level, BlockSize: s.blockSize}.Compressor()
}

func newEncoderSpec(codec Codec, level, blockSize int) (encoderSpec, error) {
	s := encoderSpec{codec: codec, level: level, blockSize: blockSize}
	lowest, highest, normal := 0, 0, 0
	switch codec {
	case Zstd:
		lowest, highest, normal = 1, 22, 3
		s.version = fmt.Sprintf("%s+tables%d", zstdVersion, tableLevel)
		s.open = func() (encoder, error) { return newZstdEncoder(s.level, blockSize) }
		s.openTables = func() (encoder, error) { return newZstdEncoder(max(s.level, tableLevel), blockSize) }
	case Gzip:
		lowest, highest, normal = 1, 9, 9
		s.version = gzipVersion
		s.open = func() (encoder, error) { return newGzipEncoder(s.level) }
	case None:
		s.open = func() (encoder, error) { return storing{}, nil }
	default:
		return s, fault.New(fault.Usage, "codec %s can be read but not written", codec)
	}
	if s.openTables == nil {
		s.openTables = s.open
	}
	if s.level == 0 {
		s.level = normal
	}
	if s.level < lowest || s.level > highest {
		return s, fault.New(fault.Usage, "%s has no level %d", codec, level)
	}
	return s, nil
}

// options returns the codec's options as the image records them, nil if they
// are those that readers assume.
func (s encoderSpec) options() []byte {
	le := func(b []byte, n uint32) []byte { return append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) }
	switch {
	case s.codec == Zstd && s.level != 15:
		return le(nil, uint32(s.level))
	case s.codec == Gzip && s.level != 9:
		return append(le(nil, uint32(s.level)), 15, 0, 0, 0) // window bits, no special strategies
	}
	return nil
}

func (s encoderSpec) flags() uint16 {
	var flags uint16
	if s.codec == None {
		flags = flagRawInodes | flagRawData | flagRawFragments | flagRawXattrs | flagRawIDs
	}
	if s.options() != nil {
		flags |= flagCodecOptions
	}
	return flags
}

// storing is the encoder that never makes anything smaller.
type storing struct{}

func (storing) encode(_, src []byte) ([]byte, error) { return src, nil }
func (storing) decode(dst, src []byte) (int, error)  { return copy(dst, src), nil }
func (storing) close()                               {}
