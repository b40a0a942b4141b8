package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Span is a part of a blob, in bytes.
type Span struct{ Offset, Length int64 }

// Seed lets fill put together a blob, as far as its parts are to be had elsewhere,
// where Download will look for it: what fill brings is believed only after Download
// has found the digest of the whole to be right. What is there of an earlier attempt
// is kept, and what fill brought before it failed or was killed counts as well. It
// does nothing where the file is there already.
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
	events := o.Events
	if events == nil {
		events = p.registry.events
	}
	partial, err := claim(ctx, d, path, o, &meter{events: events, stage: cmp.Or(o.Stage, "download"), total: d.Size})
	if err != nil || partial == nil {
		return err
	}
	defer partial.Close()
	journal, claims, err := openJournal(path+JournalSuffix, d)
	if err != nil {
		return err
	}
	defer journal.Close()
	if err := errors.Join(resize(partial, d.Size), allocate(ctx, partial, d.Size)); err != nil {
		return err
	}
	f := &Filling{repository: p, d: d, file: partial, journal: journal, limiter: newLimiter(o.Limit), covered: make([]int64, chunksOf(d.Size))}
	for chunk := range claims {
		f.covered[chunk] = f.length(int64(chunk))
	}
	return fill(ctx, f)
}

// Filling is a blob that is being put together. It is safe for concurrent use, as
// long as no part is brought twice.
type Filling struct {
	repository *Repository
	d          ocispec.Descriptor
	file       *os.File
	journal    *journal
	limiter    *limiter

	mu      sync.Mutex
	covered []int64 // bytes of each chunk
}

// File is where the blob is put together. Whoever writes to it calls Wrote.
func (f *Filling) File() *os.File { return f.file }

// length is the size of a chunk.
func (f *Filling) length(chunk int64) int64 { return min(chunkSize, f.d.Size-chunk*chunkSize) }

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

// Missing returns the parts of s that are not there from an earlier attempt. An
// attempt is remembered by whole chunks.
func (f *Filling) Missing(s Span) []Span {
	f.mu.Lock()
	defer f.mu.Unlock()
	var missing []Span
	for at, end := s.Offset, s.Offset+s.Length; at < end; {
		chunk := at / chunkSize
		next := min(end, (chunk+1)*chunkSize)
		last := len(missing) - 1
		switch {
		case f.covered[chunk] == f.length(chunk):
		case last >= 0 && missing[last].Offset+missing[last].Length == at:
			missing[last].Length += next - at
		default:
			missing = append(missing, Span{at, next - at})
		}
		at = next
	}
	return missing
}

// Wrote tells that the bytes of s are in the file. A chunk that is whole with them
// is found there by any later attempt.
func (f *Filling) Wrote(s Span) error {
	for at, end := s.Offset, s.Offset+s.Length; at < end; {
		chunk := at / chunkSize
		next := min(end, (chunk+1)*chunkSize)
		f.mu.Lock()
		f.covered[chunk] += next - at
		whole := f.covered[chunk] == f.length(chunk)
		f.mu.Unlock()
		if whole {
			if err := f.remember(chunk); err != nil {
				return err
			}
		}
		at = next
	}
	return nil
}

func (f *Filling) remember(chunk int64) error {
	data := make([]byte, f.length(chunk))
	if n, err := f.file.ReadAt(data, chunk*chunkSize); n < len(data) {
		return err
	}
	return f.journal.add(int(chunk), crc32.Checksum(data, crcTable))
}

// Fetch gets a part of the blob from the registry, no faster than the download may
// be. It has kind Refused where the registry sends no parts.
func (f *Filling) Fetch(ctx context.Context, s Span) error {
	r := &resumer{
		ctx: ctx, store: f.repository.store, d: f.d, options: f.repository.registry.retry, strict: true,
		offset: s.Offset, end: s.Offset + s.Length,
	}
	if err := r.start(); err != nil {
		return err
	}
	defer r.Close()
	data := make([]byte, min(s.Length, chunkSize))
	for at, end := s.Offset, s.Offset+s.Length; at < end; {
		part := data[:min(end-at, chunkSize)]
		if err := f.limiter.readFull(ctx, r, part); err != nil {
			return fmt.Errorf("part at %d: %w", at, err)
		}
		if _, err := f.file.WriteAt(part, at); err != nil {
			return err
		}
		if err := f.Wrote(Span{at, int64(len(part))}); err != nil {
			return err
		}
		at += int64(len(part))
	}
	return nil
}
