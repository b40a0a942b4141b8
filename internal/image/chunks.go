package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/chunk"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/squashfs"
)

const (
	chunksTitle     = "chunks.idx"
	chunksMediaType = "application/vnd.uenv-ci.chunks.v1"
	// minChunked is the size of an image below which fetching a difference saves
	// nothing.
	minChunked = 8 << 20
)

// Chunks describes an image file by chunks: its own blocks, so that images that
// share files share chunks. Of a file that is not a squashfs image, the content
// decides. Images share chunks if the grain is the same; 0 chooses one.
func Chunks(ctx context.Context, path string, d digest.Digest, grain int64) (chunk.Index, error) {
	return chunksWith(ctx, runtime.GOMAXPROCS(0), path, d, grain)
}

func chunksWith(ctx context.Context, workers int, path string, d digest.Digest, grain int64) (chunk.Index, error) {
	f, err := os.Open(path)
	if err != nil {
		return chunk.Index{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return chunk.Index{}, err
	}
	blocks, err := blocksOf(ctx, f, info.Size())
	if err != nil {
		return chunk.Index{}, err
	}
	return chunk.Build(ctx, workers, f, info.Size(), d, blocks, grain)
}

// blocksOf lists the blocks of an image; none of what cannot be read as one.
func blocksOf(ctx context.Context, r io.ReaderAt, size int64) ([]chunk.Span, error) {
	img, err := squashfs.NewReader(r, size, squashfs.Limits{})
	if err != nil {
		return nil, nil
	}
	defer img.Close()
	extents, err := img.Extents(ctx)
	if fault.KindOf(err) == fault.Interrupted {
		return nil, err
	}
	blocks := make([]chunk.Span, len(extents))
	for i, e := range extents {
		blocks[i] = chunk.Span{Offset: e.Offset, Length: e.Length}
	}
	return blocks, nil
}

// description is a chunk index that is made while the image is sent.
type description struct {
	cancel context.CancelFunc
	done   chan struct{}
	index  chunk.Index
	err    error
}

// describe begins to describe an image by chunks. It returns nil if the image has
// an index already, or is to have none, or is too small to gain from one.
func describe(ctx context.Context, repo *registry.Repository, a registry.Artifact, file File, o PublishOptions) (*description, error) {
	if o.NoChunks || file.Size < minChunked {
		return nil, nil
	}
	_, image, err := a.Manifest()
	if err != nil {
		return nil, err
	}
	present, err := repo.Referrers(ctx, image, meta.TypeChunks)
	if err != nil || len(present) > 0 {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &description{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		// Half of the processors are for who sends, and a registry on this machine.
		d.index, d.err = chunksWith(ctx, max(1, runtime.GOMAXPROCS(0)/2), file.Path, file.Digest, 0)
		if d.err != nil {
			d.err = fmt.Errorf("describe %s by chunks: %w", file.Path, d.err)
		}
	}()
	return d, nil
}

// end stops what is not needed any more.
func (d *description) end() {
	if d != nil {
		d.cancel()
		<-d.done
	}
}

// attach attaches the index.
func (d *description) attach(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, created time.Time) error {
	if d == nil {
		return nil
	}
	<-d.done
	if d.err != nil {
		return d.err
	}
	layer := registry.BytesLayer(chunksTitle, chunksMediaType, d.index.Encode())
	_, err := Attach(ctx, repo, image, Attachment{Type: meta.TypeChunks, Layers: []registry.Layer{layer}, Created: created})
	return err
}

// FetchChunks returns the chunk index that is attached to an image. Without one
// that fits its layer the error has kind NotFound.
func FetchChunks(ctx context.Context, repo *registry.Repository, image, layer ocispec.Descriptor) (chunk.Index, error) {
	attached, err := repo.Referrers(ctx, image, meta.TypeChunks)
	if err != nil {
		return chunk.Index{}, err
	}
	for _, a := range attached {
		index, err := fetchIndex(ctx, repo, a)
		if err == nil && index.Digest == layer.Digest && index.Size == layer.Size {
			return index, nil
		}
		if k := fault.KindOf(err); k == fault.Network || k == fault.Interrupted {
			return chunk.Index{}, err
		}
	}
	return chunk.Index{}, fault.New(fault.NotFound, "no %s is attached to %s", meta.TypeChunks, image.Digest)
}

func fetchIndex(ctx context.Context, repo *registry.Repository, a ocispec.Descriptor) (chunk.Index, error) {
	m, _, err := repo.Manifest(ctx, a)
	if err != nil {
		return chunk.Index{}, err
	}
	if len(m.Layers) != 1 || m.Layers[0].Size > chunk.MaxEncoded {
		return chunk.Index{}, fault.New(fault.Invalid, "%s is not one index of chunks", a.Digest)
	}
	r, err := repo.Fetch(ctx, m.Layers[0])
	if err != nil {
		return chunk.Index{}, err
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return chunk.Index{}, err
	}
	return chunk.Decode(data)
}
