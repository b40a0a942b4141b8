// Package chunk describes a file by chunks with strong hashes, and finds out which
// of them other files have already, so that only the rest must be fetched.
//
// Chunks end where the content says so: at boundaries that the caller knows, such
// as the blocks of a squashfs image, else at places that a rolling hash chooses.
// What is inserted into a file therefore changes the chunks around it only.
package chunk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Span is a part of a file, in bytes.
type Span struct{ Offset, Length int64 }

func (s Span) end() int64 { return s.Offset + s.Length }

// Sum identifies the content of a chunk: the first 80 bits of its SHA-256. Collisions
// by chance are practically impossible, and the digest of an assembled file is checked
// anyway.
type Sum [10]byte

// Chunk is one part of a file.
type Chunk struct {
	Span
	Sum Sum
}

// Index is a file as a sequence of chunks, without gaps.
type Index struct {
	Digest digest.Digest // of the whole
	Size   int64
	Grain  int64 // blocks smaller than this were taken together, in bytes
	Chunks []Chunk
}

const (
	// minChunk is the least size of a chunk where nothing is known of the content.
	minChunk = 16 << 10
	// Known blocks are taken together as far as it takes to keep the index below
	// one part in compact of its file: up to the least or greatest grain.
	leastGrain    = 1 << 10
	greatestGrain = 16 << 10
	compact       = 750
	// Where nothing is known of the content: no chunk is larger than maxFree, and
	// they end about every freeMask+1 bytes beyond minChunk.
	maxFree  = 256 << 10
	freeMask = 32<<10 - 1
	// region is how much one worker reads at a time.
	region = 8 << 20
	// maxBlock bounds a block that the caller knows: larger ones are cut.
	maxBlock = 1 << 20
)

// BuildAt describes only the given parts of a file, which must be in order and must
// not overlap: what is in between gets no chunk, so the index does not cover it.
func BuildAt(ctx context.Context, r io.ReaderAt, size int64, d digest.Digest, spans []Span) (Index, error) {
	x := Index{Digest: d, Size: size}
	var data []byte
	for _, s := range spans {
		if ctx.Err() != nil {
			return x, context.Cause(ctx)
		}
		data = slices.Grow(data[:0], int(s.Length))[:s.Length]
		if n, err := r.ReadAt(data, s.Offset); int64(n) < s.Length {
			return x, fmt.Errorf("read chunks: %w", err)
		}
		x.Chunks = append(x.Chunks, Chunk{s, sumOf(data)})
	}
	return x, nil
}

// Build describes a file of the given digest and size, of which it reads so many parts
// at a time as there are workers. The blocks are parts that are likely to be found
// elsewhere as they are; they must be in order and must not overlap. Two indexes share
// chunks if they have the same grain; 0 chooses one by which the index is small.
func Build(ctx context.Context, workers int, r io.ReaderAt, size int64, d digest.Digest, blocks []Span, grain int64) (Index, error) {
	if grain == 0 {
		grain = grainOf(size, blocks)
	}
	regions := cut(size, group(blocks, grain))
	chunks := make([][]Chunk, len(regions))
	gear := gearTable()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i, reg := range regions {
		group.Go(func() (err error) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			chunks[i], err = reg.read(r, &gear)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Index{}, fmt.Errorf("read chunks: %w", err)
	}
	return Index{Digest: d, Size: size, Grain: grain, Chunks: slices.Concat(chunks...)}, nil
}

// grainOf is the finest grain that keeps the index small.
func grainOf(size int64, blocks []Span) int64 {
	grain := int64(leastGrain)
	for grain < greatestGrain && int64(len(group(blocks, grain)))*entrySize > size/compact {
		grain *= 2
	}
	return grain
}

// part is a run of blocks, or a stretch of which nothing is known.
type part struct {
	Span
	blocks []Span // nil if nothing is known
}

// cut divides a file into parts that are read at once.
func cut(size int64, blocks []Span) []part {
	var parts []part
	end := int64(0)
	var run part
	closeRun := func() {
		if len(run.blocks) > 0 {
			parts = append(parts, run)
		}
		run = part{}
	}
	for _, b := range blocks {
		if b.Offset < end || b.Length <= 0 || b.Length > maxBlock || b.end() > size {
			continue
		}
		if b.Offset > end || run.Length+b.Length > region {
			closeRun()
			parts = append(parts, free(end, b.Offset)...)
		}
		if len(run.blocks) == 0 {
			run.Offset = b.Offset
		}
		run.blocks = append(run.blocks, b)
		run.Length += b.Length
		end = b.end()
	}
	closeRun()
	return append(parts, free(end, size)...)
}

// group takes adjacent small blocks together. A large one stands alone, so that
// what follows it is grouped the same whatever came before.
func group(blocks []Span, grain int64) []Span {
	var grouped []Span
	for _, b := range blocks {
		last := len(grouped) - 1
		if b.Length < grain && last >= 0 && grouped[last].end() == b.Offset && grouped[last].Length < grain {
			grouped[last].Length += b.Length
			continue
		}
		grouped = append(grouped, b)
	}
	return grouped
}

func free(from, to int64) []part {
	var parts []part
	for from < to {
		n := min(to-from, region)
		parts = append(parts, part{Span: Span{from, n}})
		from += n
	}
	return parts
}

func (p part) read(r io.ReaderAt, gear *[256]uint64) ([]Chunk, error) {
	data := make([]byte, p.Length)
	if n, err := r.ReadAt(data, p.Offset); n < len(data) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	spans := p.blocks
	if spans == nil {
		spans = boundaries(p.Offset, data, gear)
	}
	chunks := make([]Chunk, len(spans))
	for i, s := range spans {
		chunks[i] = Chunk{s, sumOf(data[s.Offset-p.Offset : s.end()-p.Offset])}
	}
	return chunks, nil
}

// sumOf returns the sum of a chunk's content.
func sumOf(data []byte) Sum {
	whole := sha256.Sum256(data)
	return Sum(whole[:len(Sum{})])
}

// boundaries cuts data where a hash of the last 64 bytes has enough zeros.
func boundaries(offset int64, data []byte, gear *[256]uint64) []Span {
	var spans []Span
	start := 0
	hash := uint64(0)
	for i, b := range data {
		hash = hash<<1 + gear[b]
		n := i + 1 - start
		if n >= minChunk && hash>>32&freeMask == 0 || n >= maxFree || i+1 == len(data) {
			spans = append(spans, Span{offset + int64(start), int64(n)})
			start = i + 1
		}
	}
	return spans
}

// gearTable gives each byte a random number, always the same (splitmix64).
func gearTable() (table [256]uint64) {
	x := uint64(0)
	for i := range table {
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		table[i] = z ^ z>>31
	}
	return table
}
