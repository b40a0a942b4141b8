package registry

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// ReaderAt reads parts of a blob, each by a request of its own, so that a look
// into an image does not cost a download; callers with many small reads should
// buffer. What it returns cannot be verified: a digest covers the whole. Reads end
// with ctx, and have kind Refused where the registry sends no parts.
func (p *Repository) ReaderAt(ctx context.Context, d ocispec.Descriptor) *BlobReader {
	return &BlobReader{ctx: ctx, repository: p, d: d}
}

// BlobReader reads parts of a blob. It is safe for concurrent use.
type BlobReader struct {
	ctx        context.Context
	repository *Repository
	d          ocispec.Descriptor
	single     atomic.Bool // the registry does not send several ranges at once
}

// ReadParts reads parts of the blob by one request. They are in order and none
// overlaps another. An error of kind Refused means that the registry cannot do that;
// it is not asked again.
func (r *BlobReader) ReadParts(spans []Span) ([][]byte, error) {
	many, ok := r.repository.store.(multiRanger)
	if !ok || r.single.Load() {
		return nil, fault.New(fault.Refused, "%w", errNotOpened)
	}
	data, err := r.readParts(many, spans)
	if err == nil || r.ctx.Err() != nil {
		return data, err
	}
	r.single.Store(true)
	return nil, fault.New(fault.Refused, "%w: %w", errNotOpened, err)
}

func (r *BlobReader) readParts(many multiRanger, spans []Span) ([][]byte, error) {
	if err := validDescriptor(r.d); err != nil {
		return nil, err
	}
	parts, err := many.ranges(r.ctx, r.d, spans)
	if err != nil {
		return nil, err
	}
	defer parts.Close()
	data := make([][]byte, len(spans))
	for i, s := range spans {
		if err := parts.next(s); err != nil {
			return nil, err
		}
		data[i] = make([]byte, s.Length)
		if _, err := io.ReadFull(parts, data[i]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// ReadAt implements io.ReaderAt.
func (r *BlobReader) ReadAt(b []byte, offset int64) (int, error) {
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

func (r *BlobReader) read(b []byte, offset int64) (int, error) {
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
