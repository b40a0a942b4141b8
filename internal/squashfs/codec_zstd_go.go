//go:build !cgo

package squashfs

import "github.com/klauspost/compress/zstd"

// partSize is how many bytes of a block share their entropy codes. The encoder would
// take as much as the format allows, 128 KiB, but what lies far from each other is less
// alike: images of large files are 0.8 % larger so, of many small ones 0.3 %.
const partSize = 32 << 10

const zstdVersion = "klauspost-" + klauspostVersion + "+parts32" // KiB

// zstdEncoder is for builds without cgo. It writes each block as one frame that says its content size and has
// no checksum. The window never exceeds the block: the kernel's decoder has no
// more memory than that, and fails with EIO.
type zstdEncoder struct {
	decoder
	e *zstd.Encoder
}

func newZstdEncoder(level, blockSize int) (encoder, error) {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true),
		// A window no larger than partSize makes parts of that size, and a larger one
		// after it leaves them so.
		zstd.WithWindowSize(min(partSize, blockSize)), zstd.WithWindowSize(blockSize),
	)
	if err != nil {
		return nil, err
	}
	d, err := newZstdDecoder()
	return zstdEncoder{d, e}, err
}

func (z zstdEncoder) encode(dst, src []byte) ([]byte, error) {
	return z.e.EncodeAll(src, dst[:0]), nil
}

func (z zstdEncoder) close() {
	z.decoder.close()
	z.e.Close()
}
