package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Span is a part of a blob, in bytes.
type Span struct{ Offset, Length int64 }

// Seed lets fill write parts of a blob that are to be had elsewhere to where
// Download will look for them: what fill returns is believed only after Download
// has found the digest of the whole to be right. It does nothing where a download
// has begun, or the file is there. What fill returns together with an error
// counts as well.
func (p *Repository) Seed(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions, fill func(context.Context, *os.File) ([]Span, error)) error {
	if err := validDescriptor(d); err != nil {
		return err
	}
	if err := p.seed(ctx, d, path, o, fill); err != nil {
		return fmt.Errorf("put together %s of %s: %w", d.Digest, p, withSpaceHint(err))
	}
	return nil
}

func (p *Repository) seed(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions, fill func(context.Context, *os.File) ([]Span, error)) error {
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
	if len(claims) > 0 {
		return nil
	}
	if err := allocate(partial, d.Size); err != nil {
		return err
	}
	spans, err := fill(ctx, partial)
	return errors.Join(err, journalSpans(partial, journal, d, spans))
}

// journalSpans claims the chunks that the spans, which are in order, cover whole.
func journalSpans(f io.ReaderAt, j *journal, d ocispec.Descriptor, spans []Span) error {
	data := make([]byte, chunkSize)
	from, to := int64(0), int64(0) // what is covered without a gap
	next := int64(0)               // chunk to be claimed next
	for _, s := range append(spans, Span{d.Size, 0}) {
		if s.Offset <= to {
			to = max(to, s.Offset+s.Length)
		}
		for ; ; next++ {
			start, end := next*chunkSize, min((next+1)*chunkSize, d.Size)
			if start >= end || start < from || end > to {
				break
			}
			if n, err := f.ReadAt(data[:end-start], start); int64(n) < end-start {
				return err
			}
			if err := j.add(int(next), crc32.Checksum(data[:end-start], crcTable)); err != nil {
				return err
			}
		}
		if s.Offset > to {
			from, to = s.Offset, s.Offset+s.Length
			next = (from + chunkSize - 1) / chunkSize
		}
	}
	return nil
}
