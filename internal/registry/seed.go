package registry

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

// Span is a part of a blob, in bytes.
type Span struct{ Offset, Length int64 }

func (s Span) end() int64 { return s.Offset + s.Length }

// Part is a part of a blob that is also found elsewhere: in From, at offset At.
type Part struct {
	Span
	From *os.File
	At   int64
}

// ErrUnfit means that parts copied from elsewhere are not those of the blob.
var ErrUnfit = errors.New("what was put together is not the blob")

// Seed lets fill assemble a blob from parts found elsewhere, where Download looks for
// it. The digest is computed along the way. If everything is there and the digest is
// right, the file gets its final name; if the digest is wrong, nothing is left and the
// error is ErrUnfit. Otherwise, even if fill failed or the process was killed, Download
// or another Seed continues from what fill has written. Seed does nothing if the file
// exists already.
func (p *Repository) Seed(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions, fill func(context.Context, *Filling) error) error {
	if err := validDescriptor(d); err != nil {
		return err
	}
	if err := p.seed(ctx, d, path, o, fill); err != nil {
		return fmt.Errorf("put together %s of %s: %w", d.Digest, p, withSpaceHint(err))
	}
	return nil
}

func (p *Repository) seed(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions, fill func(context.Context, *Filling) error) error {
	t, err := p.prepare(ctx, d, path, o)
	if err != nil || t == nil {
		return err
	}
	defer t.close()
	err = newFilling(t).run(ctx, fill)
	switch {
	case errors.Is(err, errIncomplete):
		return nil
	case errors.Is(err, errContent) && t.complete():
		err = fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	return t.conclude(err, path)
}

// Filling is a blob that is being put together. It is safe for concurrent use, as
// long as no part is brought twice.
type Filling struct {
	t *transfer

	mu      sync.Mutex
	covered []int64 // bytes of each chunk
	shares  bool    // the file systems share blocks, as far as is known
}

func newFilling(t *transfer) *Filling {
	f := &Filling{t: t, covered: make([]int64, len(t.state)), shares: true}
	for chunk, state := range t.state {
		if state == chunkDone {
			f.covered[chunk] = int64(t.length(chunk))
		}
	}
	return f
}

var errIncomplete = errors.New("parts of the blob are missing")

// run has the blob filled and hashed at once. The error is errIncomplete if not all
// of it was brought.
func (f *Filling) run(ctx context.Context, fill func(context.Context, *Filling) error) error {
	if done := f.Done(); done > 0 {
		f.t.meter.events.Info(f.t.meter.stage, "going on after %d of %d bytes", done, f.t.d.Size)
	}
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, f.t.wake)()
	group.Go(func() error { return f.t.hash(ctx) })
	group.Go(func() error {
		if err := fill(ctx, f); err != nil {
			return err
		}
		return f.t.allHashed(ctx)
	})
	return group.Wait()
}

// allHashed waits until all is hashed. What is missing, or turns out not to be on disk
// as it was claimed, comes no more.
func (t *transfer) allHashed(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.hashed {
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if t.missing > 0 {
			return errIncomplete
		}
		t.change.Wait()
	}
	return nil
}

// Done returns how many bytes are there.
func (f *Filling) Done() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int64
	for _, covered := range f.covered {
		n += covered
	}
	return n
}

// missing returns the parts of s that are not there from an earlier attempt. An
// attempt is remembered by whole chunks.
func (f *Filling) missing(s Span) []Span {
	f.mu.Lock()
	defer f.mu.Unlock()
	var missing []Span
	for at := s.Offset; at < s.end(); {
		chunk := at / chunkSize
		next := min(s.end(), (chunk+1)*chunkSize)
		last := len(missing) - 1
		switch {
		case f.covered[chunk] == int64(f.t.length(int(chunk))):
		case last >= 0 && missing[last].end() == at:
			missing[last].Length += next - at
		default:
			missing = append(missing, Span{at, next - at})
		}
		at = next
	}
	return missing
}

// Copy brings parts that are in other files, in the order of the blob.
func (f *Filling) Copy(ctx context.Context, parts []Part) error {
	chunk, run := -1, []Part(nil) // what of a chunk there is
	for _, p := range parts {
		for _, s := range f.missing(p.Span) {
			for at := s.Offset; at < s.end(); {
				here := int(at / chunkSize)
				if here != chunk {
					if err := f.copyChunk(ctx, chunk, run); err != nil {
						return err
					}
					chunk, run = here, run[:0]
				}
				n := min(s.end(), int64(here+1)*chunkSize) - at
				run = append(run, Part{Span{at, n}, p.From, p.At + at - p.Offset})
				at += n
			}
		}
	}
	return f.copyChunk(ctx, chunk, run)
}

// copyChunk brings what there is of a chunk: through memory, since it is hashed as
// well, unless the file systems share blocks.
func (f *Filling) copyChunk(ctx context.Context, chunk int, parts []Part) error {
	if len(parts) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	data := f.t.buffer()
	start, copied := int64(chunk)*chunkSize, int64(0)
	for _, p := range parts {
		if f.share(p) {
			copied += p.Length
			continue
		}
		content := data[p.Offset-start:][:p.Length]
		_, err := p.From.ReadAt(content, p.At)
		if errors.Is(err, io.EOF) {
			err = fault.New(fault.Failure, "it is shorter than it was")
		}
		if err != nil {
			f.t.release(data)
			return fmt.Errorf("copy from %s: %w", p.From.Name(), err)
		}
		if _, err := f.t.file.WriteAt(content, p.Offset); err != nil {
			f.t.release(data)
			return err
		}
		if copied += p.Length; len(parts) == 1 && copied == int64(f.t.length(chunk)) {
			f.cover(chunk, copied)
			return f.t.keep(ctx, chunk, content, crc32.Checksum(content, crcTable))
		}
	}
	f.t.release(data)
	return f.wrote(ctx, chunk, copied)
}

// shareUnit is what the beginning of a part must be a multiple of, in bytes, for
// file systems to share its blocks.
const shareUnit = 4096

// share has the file systems share the blocks of a part, and tells whether they do.
func (f *Filling) share(p Part) bool {
	if p.Offset%shareUnit != 0 || p.At%shareUnit != 0 || p.Length%shareUnit != 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shares {
		f.shares = unix.IoctlFileCloneRange(int(f.t.file.Fd()), &unix.FileCloneRange{
			Src_fd: int64(p.From.Fd()), Src_offset: uint64(p.At), Src_length: uint64(p.Length), Dest_offset: uint64(p.Offset),
		}) == nil
	}
	return f.shares
}

// cover notes that so many more bytes of a chunk are there, and tells whether it is
// whole.
func (f *Filling) cover(chunk int, n int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.covered[chunk] += n
	return f.covered[chunk] == int64(f.t.length(chunk))
}

// wrote notes bytes that were written to the file. A chunk that is whole with them
// is found there by any later attempt.
func (f *Filling) wrote(ctx context.Context, chunk int, n int64) error {
	if !f.cover(chunk, n) {
		return nil
	}
	data := f.t.buffer()[:f.t.length(chunk)]
	if _, err := f.t.file.ReadAt(data, int64(chunk)*chunkSize); err != nil {
		f.t.release(data)
		return err
	}
	return f.t.keep(ctx, chunk, data, crc32.Checksum(data, crcTable))
}

// wroteSpan is wrote for a span of any length.
func (f *Filling) wroteSpan(ctx context.Context, s Span) error {
	for at := s.Offset; at < s.end(); {
		chunk := at / chunkSize
		next := min(s.end(), (chunk+1)*chunkSize)
		if err := f.wrote(ctx, int(chunk), next-at); err != nil {
			return err
		}
		at = next
	}
	return nil
}
