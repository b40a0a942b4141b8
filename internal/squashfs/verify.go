package squashfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/event"
)

// Verify reads all of an image: every metadata block, every table, every inode
// and listing, every data and fragment block; and checks all that the image says
// twice against each other. What it cannot see is a change that leaves all of
// that possible, such as another letter in a stored text: only the digest of the
// whole file tells that.
func Verify(ctx context.Context, m *Image, sink event.Sink) error {
	const stage = "verify"
	sink.Start(stage, "%d inodes", m.sb.Inodes)
	v := newVerifier(m, nil)
	v.meter = &meter{sink: sink, stage: stage, total: int64(m.sb.InodeTable)}
	if err := v.run(ctx); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	v.meter.finish()
	sink.Done(stage, "%d inodes, %d blocks", len(v.inodes), len(v.blocks))
	return nil
}

// expectation is what an image ought to hold. A nil one expects nothing.
type expectation interface {
	directory(dir *inode) error
	entry(dir *inode, d dirent, i *inode) error
	file(i *inode, words []uint32) error
	block(at uint64, content []byte) error
	fragment(index uint32, content []byte) error
	// copied tells whether a block need not be decoded, since its stored form is
	// known; it is an error if it has another one.
	copied(at uint64, word uint32) (bool, error)
}

// verifier checks an image.
type verifier struct {
	m      *Image
	expect expectation
	meter  *meter // of stored bytes
	group  *errgroup.Group
	ctx    context.Context

	inodes    map[uint32]*seenInode
	blocks    map[uint64]uint32 // size words of the blocks, by where they are stored
	tails     []tail            // what files have in fragments
	listed    int64             // bytes of listings
	maxListed int64
	buffers   sync.Pool
}

// tail is where the end of a file is.
type tail struct{ fragment, offset, size uint32 }

// seenInode is an inode that the walk met.
type seenInode struct {
	ref          uint64
	names, nlink uint32
	dir          bool
}

func newVerifier(m *Image, expect expectation) *verifier {
	return &verifier{
		m: m, expect: expect, meter: &meter{},
		inodes: map[uint32]*seenInode{}, blocks: map[uint64]uint32{},
	}
}

func (v *verifier) run(ctx context.Context) error {
	v.group, v.ctx = errgroup.WithContext(ctx)
	v.group.SetLimit(runtime.GOMAXPROCS(0) + 1)
	err := v.structure()
	if waited := v.group.Wait(); waited != nil {
		return waited
	}
	return err
}

// structure walks the image. Blocks are decoded on other goroutines meanwhile.
func (v *verifier) structure() error {
	if err := v.tables(); err != nil {
		return err
	}
	root, err := v.m.root()
	if err != nil {
		return err
	}
	if err := v.inode(root); err != nil {
		return err
	}
	w := walker{m: v.m, directory: v.directory, entry: v.entry}
	if err := w.walk(v.ctx); err != nil {
		return err
	}
	if err := v.counts(); err != nil {
		return err
	}
	if err := v.export(); err != nil {
		return err
	}
	if err := v.fragments(); err != nil {
		return err
	}
	return v.overlaps()
}

// tables checks that each table is a run of metadata blocks without gaps, which
// hold no more than its entries.
func (v *verifier) tables() error {
	if _, err := v.m.owner(&inode{}); err != nil { // reads the id table
		return err
	}
	if _, err := v.chain(&v.m.inodeTable, v.m.inodeTable.start, v.m.inodeTable.end); err != nil {
		return err
	}
	fragments, err := v.m.fragments()
	if err != nil {
		return err
	}
	export, err := v.exportTable()
	if err != nil {
		return err
	}
	ids, err := v.m.idTable()
	if err != nil {
		return err
	}
	xattrs, err := v.m.xattrs()
	if err != nil {
		return err
	}
	end := v.m.directoryTable.end
	for _, t := range []lookupTable{ids, export, fragments} {
		if len(t.pointers) > 0 {
			end = int64(t.pointers[0])
		}
	}
	if v.maxListed, err = v.chain(&v.m.directoryTable, v.m.directoryTable.start, end); err != nil {
		return err
	}
	for _, t := range []lookupTable{fragments, export, ids, xattrs.sets} {
		if err := v.lookup(t); err != nil {
			return err
		}
	}
	return v.last(ids, xattrs)
}

// lookup checks the blocks of a lookup table, and the pointers to them.
func (v *verifier) lookup(t lookupTable) error {
	if t.count == 0 {
		return nil
	}
	for k, at := range t.pointers {
		if at > uint64(t.end) {
			return invalid(t.name, errTableEnd)
		}
		content, next, err := v.m.metaBlock(&t.table, int64(at))
		if err != nil {
			return err
		}
		want, left := uint64(t.end), t.count*t.entry-k*metaSize
		if k+1 < len(t.pointers) {
			want = t.pointers[k+1]
		} else if t.after > 0 {
			want = uint64(t.end - t.after)
		}
		if uint64(next) != want || len(content) != min(left, metaSize) {
			return invalid(t.name, fmt.Errorf("block %d of %d bytes ends at %d", k, len(content), next))
		}
	}
	return nil
}

// last checks that the image ends with its last table.
func (v *verifier) last(ids lookupTable, xattrs xattrTable) error {
	end := ids.end + int64(len(ids.pointers))*pointerSize
	if v.m.sb.XattrTable != noTable {
		end = xattrs.sets.end + int64(len(xattrs.sets.pointers))*pointerSize
		first := xattrs.values.end
		if len(xattrs.sets.pointers) > 0 {
			first = int64(xattrs.sets.pointers[0])
		}
		if _, err := v.chain(&xattrs.values, xattrs.values.start, first); err != nil {
			return err
		}
	}
	if end != int64(v.m.sb.BytesUsed) {
		return invalid("superblock", fmt.Errorf("%d bytes are used, and the last table ends at %d", v.m.sb.BytesUsed, end))
	}
	return nil
}

// chain reads the blocks of a table one by one up to an end and returns how much
// they hold. Each but the last is full.
func (v *verifier) chain(t *table, at, end int64) (int64, error) {
	total := int64(0)
	for at != end {
		if total%metaSize != 0 || at > end {
			return 0, invalid(t.name, fmt.Errorf("its blocks do not end where it does, at %d", end))
		}
		if v.ctx.Err() != nil {
			return 0, context.Cause(v.ctx)
		}
		content, next, err := v.m.metaBlock(t, at)
		if err != nil {
			return 0, err
		}
		total += int64(len(content))
		at = next
	}
	return total, nil
}

func (v *verifier) directory(_ string, dir *inode) error {
	if v.listed += dir.size; v.listed > v.maxListed {
		return invalid("directory", errors.New("listings overlap"))
	}
	if err := v.index(dir); err != nil {
		return err
	}
	if v.expect != nil {
		return v.expect.directory(dir)
	}
	return nil
}

// index checks that a directory's index leads to headers of its listing. It goes
// through both once: an index may have 65,535 entries.
func (v *verifier) index(dir *inode) error {
	if dir.indexed == 0 {
		return nil
	}
	l, err := v.m.listing(dir, 0, uint64(dir.block), int(dir.listOffset))
	if err != nil {
		return err
	}
	c, err := v.m.cursor(&v.m.inodeTable, dir.rest.block, dir.rest.offset)
	if err != nil {
		return err
	}
	for range dir.indexed {
		x, first, err := readIndexEntry(&c)
		if err != nil {
			return err
		}
		name := string(first)
		right, err := l.skipTo(dir, x, name)
		if err != nil {
			return err
		}
		if !right {
			return invalid("directory", fmt.Errorf("its index is wrong at %q", name))
		}
	}
	return nil
}

func (v *verifier) entry(_ string, dir *inode, d dirent, i *inode) error {
	if v.expect != nil {
		if err := v.expect.entry(dir, d, i); err != nil {
			return err
		}
	}
	if err := v.inode(i); err != nil {
		return fmt.Errorf("%q: %w", d.name, err)
	}
	if i.kind == typeDir {
		v.inodes[dir.number].names++
	}
	return nil
}

func (v *verifier) inode(i *inode) error {
	if seen := v.inodes[i.number]; seen != nil {
		if seen.ref != i.ref {
			return invalid("inode", fmt.Errorf("two are number %d", i.number))
		}
		seen.names++
		return nil
	}
	names := uint32(1)
	if i.kind == typeDir {
		names = 2 // the other one is "." in itself; those in it add ".."
	}
	v.inodes[i.number] = &seenInode{i.ref, names, i.nlink, i.kind == typeDir}
	if _, err := v.m.owner(i); err != nil {
		return err
	}
	if err := v.xattrs(i); err != nil {
		return err
	}
	if i.kind != typeFile {
		return nil
	}
	return v.file(i)
}

func (v *verifier) xattrs(i *inode) error {
	all, err := v.m.xattrsOf(i)
	if err != nil || i.xattr == noXattrs {
		return err
	}
	t, err := v.m.xattrs()
	if err != nil {
		return err
	}
	head, err := t.sets.get(i.xattr)
	if err != nil {
		return err
	}
	size := 0
	for _, x := range all {
		size += len(x.name) + 1 + len(x.value)
	}
	if told := binary.LittleEndian.Uint32(head[12:]); uint32(size) != told {
		return invalid("extended attribute table", fmt.Errorf("%d bytes in place of %d", size, told))
	}
	return nil
}

// counts compares what was met with what the superblock and the inodes say.
func (v *verifier) counts() error {
	if len(v.inodes) != int(v.m.sb.Inodes) {
		return invalid("superblock", fmt.Errorf("%d inodes, and the tree has %d", v.m.sb.Inodes, len(v.inodes)))
	}
	for number, seen := range v.inodes {
		if seen.names != seen.nlink {
			return invalid("inode", fmt.Errorf("number %d has %d links, and %d names", number, seen.nlink, seen.names))
		}
	}
	return nil
}

func (v *verifier) exportTable() (lookupTable, error) {
	if v.m.sb.ExportTable == noTable {
		return lookupTable{}, nil
	}
	return v.m.lookupTable("export table", v.m.directoryTable.start, int64(v.m.sb.ExportTable), exportEntrySize, int(v.m.sb.Inodes))
}

// export checks the table that finds inodes by their numbers.
func (v *verifier) export() error {
	t, err := v.exportTable()
	if err != nil || t.count == 0 {
		return err
	}
	for number, seen := range v.inodes {
		entry, err := t.get(number - 1)
		if err != nil {
			return err
		}
		if binary.LittleEndian.Uint64(entry) != seen.ref {
			return invalid("export table", fmt.Errorf("inode %d is not where it says", number))
		}
	}
	return nil
}
