//go:build !cgo

package squashfs

import "github.com/klauspost/compress/zstd"

const zstdVersion = "klauspost-" + klauspostVersion

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
		zstd.WithWindowSize(blockSize),
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
