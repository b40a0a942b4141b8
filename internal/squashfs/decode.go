package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"uenv-ci.dev/internal/fault"
)

// errTooLong tells that a block decompresses to more than the format allows.
var errTooLong = errors.New("decompresses to more than its block may hold")

// decoder decompresses blocks. It is safe for concurrent use.
type decoder interface {
	// decode fills dst with what src holds and returns how much that was. It
	// fails if dst is too small, and allocates in proportion to dst at most.
	decode(dst, src []byte) (int, error)
	close()
}

func newDecoder(c Codec) (decoder, error) {
	switch c {
	case Zstd:
		return newZstdDecoder()
	case Gzip, None:
		return &zlibDecoder{}, nil
	case Xz:
		return xzDecoder{}, nil
	case Lz4:
		return lz4Decoder{}, nil
	case Lzo:
		return lzoDecoder{}, nil
	}
	return nil, fault.New(fault.Invalid, "images compressed with %s cannot be read", c)
}

// decodeSafely is d.decode for hostile input: a panic in it is an error.
func decodeSafely(d decoder, dst, src []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, fmt.Errorf("decompress: %v", r)
		}
	}()
	if n, err = d.decode(dst, src); err != nil {
		return 0, fmt.Errorf("decompress: %w", err)
	}
	return n, nil
}

type zstdDecoder struct{ d *zstd.Decoder }

func newZstdDecoder() (decoder, error) {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0), // one for each processor
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8<<20),
		zstd.WithDecoderMaxMemory(maxBlockSize),
		zstd.WithDecodeAllCapLimit(true),
	)
	if err != nil {
		return nil, err
	}
	return zstdDecoder{d}, nil
}

func (z zstdDecoder) decode(dst, src []byte) (int, error) {
	out, err := z.d.DecodeAll(src, dst[:0:len(dst)])
	return len(out), err
}

func (z zstdDecoder) close() { z.d.Close() }

// zlibDecoder reads zlib streams. Its zero value is ready.
type zlibDecoder struct{ pool sync.Pool }

func (z *zlibDecoder) decode(dst, src []byte) (int, error) {
	in := bytes.NewReader(src)
	r, ok := z.pool.Get().(io.Reader)
	if !ok {
		first, err := zlib.NewReader(in)
		if err != nil {
			return 0, err
		}
		r = first
	} else if err := r.(zlib.Resetter).Reset(in, nil); err != nil {
		return 0, err
	}
	n, err := readUpTo(r, dst)
	z.pool.Put(r)
	return n, err
}

func (*zlibDecoder) close() {}

// readUpTo reads all of r, which must fit into dst.
func readUpTo(r io.Reader, dst []byte) (int, error) {
	n, err := io.ReadFull(r, dst)
	if err == io.EOF || err == io.ErrUnexpectedEOF && n < len(dst) {
		return n, eofOnly(r)
	}
	if err != nil {
		return n, err
	}
	return n, eofOnly(r)
}

// eofOnly reads the end of r, where checksums are compared.
func eofOnly(r io.Reader) error {
	var one [1]byte
	switch n, err := r.Read(one[:]); {
	case n > 0:
		return errTooLong
	case err == io.EOF:
		return nil
	case err == nil:
		return io.ErrNoProgress
	default:
		return err
	}
}

type lz4Decoder struct{}

func (lz4Decoder) decode(dst, src []byte) (int, error) { return lz4.UncompressBlock(src, dst) }
func (lz4Decoder) close()                              {}

type lzoDecoder struct{}

func (lzoDecoder) decode(dst, src []byte) (int, error) { return lzo.Decompress(src, dst) }
func (lzoDecoder) close()                              {}

// xzDecoder reads single-block xz streams with the LZMA2 filter. It opens the
// container itself: the xz module allocates whatever dictionary a stream asks
// for, up to 4 GiB.
type xzDecoder struct{}

func (xzDecoder) decode(dst, src []byte) (int, error) {
	s, err := parseXz(src)
	if err != nil {
		return 0, err
	}
	in := bytes.NewReader(s.data)
	r, err := lzma.Reader2Config{DictCap: max(s.dictionary, lzma.MinDictCap)}.NewReader2(in)
	if err != nil {
		return 0, err
	}
	n, err := readUpTo(r, dst)
	if err != nil {
		return 0, err
	}
	return n, s.check(dst[:n], len(s.data)-in.Len())
}

func (xzDecoder) close() {}
