package registry

import (
	"context"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// ReaderAt reads parts of a blob, each by a request of its own, so that a look
// into an image does not cost a download; callers with many small reads should
// buffer. What it returns cannot be verified: a digest covers the whole. Reads end
// with ctx, and have kind Refused where the registry sends no parts.
func (p *Repository) ReaderAt(ctx context.Context, d ocispec.Descriptor) io.ReaderAt {
	return &blobReader{ctx, p, d}
}

type blobReader struct {
	ctx        context.Context
	repository *Repository
	d          ocispec.Descriptor
}

// ReadAt implements io.ReaderAt.
func (r *blobReader) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fault.New(fault.Failure, "read at the negative offset %d", offset)
	}
	if offset >= r.d.Size {
		return 0, io.EOF
	}
	want := int(min(int64(len(b)), r.d.Size-offset))
	n, err := r.read(b[:want], offset)
	if err != nil {
		return n, fmt.Errorf("read %d bytes at %d of %s in %s: %w", want, offset, r.d.Digest, r.repository, err)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (r *blobReader) read(b []byte, offset int64) (int, error) {
	if err := validDescriptor(r.d); err != nil || len(b) == 0 {
		return 0, err
	}
	part := &resumer{
		ctx: r.ctx, store: r.repository.store, d: r.d, options: r.repository.registry.retry,
		offset: offset, end: offset + int64(len(b)), strict: true,
	}
	if err := part.start(); err != nil {
		return 0, err
	}
	defer part.Close()
	return io.ReadFull(part, b)
}
