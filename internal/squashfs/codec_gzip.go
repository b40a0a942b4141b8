package squashfs

import (
	"bytes"

	"github.com/klauspost/compress/zlib"
)

const gzipVersion = "klauspost-" + klauspostVersion

// gzipEncoder writes zlib streams, which is what squashfs calls gzip.
type gzipEncoder struct {
	*zlibDecoder
	w *zlib.Writer
}

func newGzipEncoder(level int) (encoder, error) {
	w, err := zlib.NewWriterLevel(nil, level)
	return gzipEncoder{&zlibDecoder{}, w}, err
}

func (e gzipEncoder) encode(dst, src []byte) ([]byte, error) {
	b := bytes.NewBuffer(dst[:0])
	e.w.Reset(b)
	if _, err := e.w.Write(src); err != nil {
		return nil, err
	}
	err := e.w.Close()
	return b.Bytes(), err
}
