//go:build !cgo

package main

import "github.com/klauspost/compress/zstd"

// newCompressor returns the encoder in Go, at the level that stands for zstd's 3.
func newCompressor() (func(dst, src []byte) error, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(blockSize))
	return func(dst, src []byte) error {
		e.EncodeAll(src, dst[:0])
		return nil
	}, err
}
