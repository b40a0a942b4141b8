package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/squashfs"
)

// How a look into an image far away reads metadata: what is looked at together is
// stored together, mostly before what was asked for, since a directory is written
// after all that is in it. Behind the last inode the listings begin, and behind the
// last listing the table of the fragments: both are looked at next.
const (
	windowBefore  = 24 << 10
	windowAfter   = 8 << 10
	listingsAfter = 24 << 10 // read with the last inodes
	tableAfter    = 16 << 10 // read with listings
	ownersBefore  = 4 << 10  // tables behind the fragments are looked at alone
	fragmentsNear = 96 << 10 // the fragment table is read along if it ends so near
	windowKept    = 16 << 20
)

// What is read ahead by one request, where a request can return many parts. First the
// beginning and the end of the image, with the superblock and the owners; then what is
// needed to look into meta/, where packers usually put it.
const (
	headLength    = 4 << 10
	tailLength    = 8 << 10
	firstInodes   = 12 << 10
	lastInodes    = 16 << 10
	firstListings = 20 << 10
	lastListings  = 24 << 10 // before the place where the fragment table probably begins
	fragmentsHead = 20 << 10 // and behind it
	fragmentsTail = 4 << 10
	// A block of the fragment table has 512 entries, whose positions and sizes
	// compress to some 6 bytes each.
	fragmentBlock = 512 * 6
)

// Inside opens the image in a registry for a look into it, by requests for parts of
// it. What it reads cannot be checked, since the digest covers the whole; reads end
// with ctx.
func Inside(ctx context.Context, repo *registry.Repository, layer ocispec.Descriptor) (*squashfs.Image, error) {
	m, err := look(repo.ReaderAt(ctx, layer), layer.Size)
	return m, fault.Wrap(fault.KindOf(err), err, "look into the image of %s", repo.Name())
}

// remote reads what is far away.
type remote interface {
	io.ReaderAt
	// ReadParts reads parts, in order and none overlapping another, by one request.
	// Where that cannot be done it fails.
	ReadParts(spans []registry.Span) ([][]byte, error)
}

func look(r remote, size int64) (*squashfs.Image, error) {
	w := &window{r: r, size: size, dataEnd: 0}
	w.readAhead(registry.Span{Length: headLength}, registry.Span{Offset: size - tailLength, Length: tailLength})
	m, err := squashfs.NewReader(w, size, squashfs.Limits{ReadFile: maxEnv})
	if err != nil {
		return nil, err
	}
	t := m.Tables()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dataEnd, w.tables = t.Start, t
	w.readAhead(probable(t)...)
	return m, nil
}

// probable tells where the metadata is that a look into meta/ needs. Its inodes are
// among the first or last, as its name comes before or after those of the packages,
// and so are its listing and its fragments; the root's are the last.
func probable(t squashfs.Tables) []registry.Span {
	spans := []registry.Span{
		{Offset: t.Start, Length: firstInodes},
		{Offset: t.Listings - lastInodes, Length: lastInodes + firstListings},
	}
	if t.Pointers == 0 {
		return spans
	}
	begin := t.Pointers - (t.Fragments-t.Pointers)/8*fragmentBlock
	return append(spans,
		registry.Span{Offset: begin - lastListings, Length: lastListings + fragmentsHead},
		registry.Span{Offset: t.Pointers - fragmentsTail, Length: fragmentsTail + t.Fragments - t.Pointers})
}

// EnvInside reads meta/env.json of the image in a registry. Without one the error
// has kind NotFound.
func EnvInside(ctx context.Context, repo *registry.Repository, layer ocispec.Descriptor) (meta.Env, error) {
	m, err := Inside(ctx, repo, layer)
	if err != nil {
		return meta.Env{}, err
	}
	defer m.Close()
	data, err := m.ReadFile(meta.EnvFile) // asks for nothing else, such as owners
	if errors.Is(err, fs.ErrNotExist) {
		return meta.Env{}, fault.New(fault.NotFound, "the image of %s has no %s", repo.Name(), meta.EnvFile)
	}
	if err != nil {
		return meta.Env{}, fault.Wrap(fault.KindOf(err), err, "look into the image of %s", repo.Name())
	}
	env, err := meta.ParseEnv(data)
	return env, fault.Wrap(fault.Invalid, err, "read %s inside the image of %s", meta.EnvFile, repo.Name())
}

// window reads metadata in larger parts than asked for, and keeps them. Data is
// read as asked for.
type window struct {
	r       remote
	size    int64
	dataEnd int64 // where metadata begins
	tables  squashfs.Tables

	mu    sync.Mutex
	kept  int
	parts []windowPart // in the order of their offsets, none overlapping another
}

type windowPart struct {
	at   int64
	data []byte
}

func (p windowPart) end() int64 { return p.at + int64(len(p.data)) }

// ReadAt implements io.ReaderAt.
func (w *window) ReadAt(b []byte, off int64) (int, error) {
	w.mu.Lock()
	if off >= w.dataEnd || off < 4096 {
		defer w.mu.Unlock()
		return w.readMeta(b, off)
	}
	w.mu.Unlock()
	return w.r.ReadAt(b, off)
}

func (w *window) readMeta(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		if off >= w.size {
			return done, io.EOF
		}
		p, err := w.part(off, int64(len(b)-done))
		if err != nil {
			return done, err
		}
		n := copy(b[done:], p.data[off-p.at:])
		done, off = done+n, off+int64(n)
	}
	return done, nil
}

// readAhead reads parts by one request, as far as they are not here. Without them all
// is read when it is asked for.
func (w *window) readAhead(spans ...registry.Span) {
	missing := w.missing(spans)
	if len(missing) < 2 { // it is read when it is asked for
		return
	}
	data, err := w.r.ReadParts(missing)
	if err != nil {
		return
	}
	for i, s := range missing {
		w.insert(windowPart{s.Offset, data[i]})
	}
}

// missing returns what of some spans is not here, in order and joined.
func (w *window) missing(spans []registry.Span) []registry.Span {
	slices.SortFunc(spans, func(a, b registry.Span) int { return cmp.Compare(a.Offset, b.Offset) })
	var missing []registry.Span
	for _, s := range spans {
		from, to := max(s.Offset, w.dataEnd), min(s.Offset+s.Length, w.size)
		for _, p := range w.parts {
			switch {
			case p.end() <= from || to <= p.at:
			case p.at <= from:
				from = p.end()
			default:
				to = p.at
			}
		}
		last := len(missing) - 1
		switch {
		case from >= to:
		case last >= 0 && from <= missing[last].Offset+missing[last].Length:
			missing[last].Length = max(missing[last].Length, to-missing[last].Offset)
		default:
			missing = append(missing, registry.Span{Offset: from, Length: to - from})
		}
	}
	return missing
}

// insert keeps a part that overlaps no other.
func (w *window) insert(p windowPart) {
	i, _ := slices.BinarySearchFunc(w.parts, p.at, func(q windowPart, at int64) int { return cmp.Compare(q.at, at) })
	w.parts = slices.Insert(w.parts, i, p)
	w.kept += len(p.data)
}

// around tells what is read when n bytes at off are asked for.
func (w *window) around(off, n int64) (from, to int64) {
	before, after, t := int64(windowBefore), int64(windowAfter), w.tables
	switch {
	case off < w.dataEnd || w.dataEnd == 0: // the superblock
		before, after = 0, max(4096-n, 0)
	case off < t.Listings && off+n+windowAfter >= t.Listings:
		after = max(after, t.Listings+listingsAfter-off-n)
	case off >= t.Listings && (off < t.Pointers || t.Pointers == 0):
		after = tableAfter
	case off >= t.Fragments:
		before = ownersBefore
	case off >= t.Pointers:
		before, after = off-t.Pointers, t.Fragments-off-n
	}
	from, to = off-before, off+n+after
	if w.dataEnd > 0 && off >= w.dataEnd {
		from = max(from, w.dataEnd)
	}
	if off < t.Fragments && t.Fragments <= off+fragmentsNear {
		to = max(to, t.Fragments)
	}
	return max(from, 0), min(max(to, off+n), w.size)
}

// part returns the part that has the byte at off, and fetches it if it is not here.
func (w *window) part(off, n int64) (windowPart, error) {
	i, _ := slices.BinarySearchFunc(w.parts, off, func(p windowPart, off int64) int {
		if p.end() <= off {
			return -1
		}
		return 1
	}) // the first part that ends behind off
	if i < len(w.parts) && w.parts[i].at <= off {
		return w.parts[i], nil
	}
	from, to := w.around(off, n)
	if i > 0 {
		from = max(from, w.parts[i-1].end())
	}
	if i < len(w.parts) {
		to = min(to, w.parts[i].at)
	}
	p := windowPart{from, make([]byte, to-from)}
	if got, err := w.r.ReadAt(p.data, from); int64(got) < to-from {
		return p, fmt.Errorf("read %d bytes at %d: %w", to-from, from, errors.Join(io.ErrUnexpectedEOF, err))
	}
	if w.kept += len(p.data); w.kept > windowKept { // more than a look: begin anew
		w.parts, w.kept, i = nil, len(p.data), 0
	}
	w.parts = slices.Insert(w.parts, i, p)
	return p, nil
}
