package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// table is a range of the image that holds metadata blocks.
type table struct {
	name       string
	start, end int64
}

// maxMetaAhead is how many metadata blocks are decoded ahead at a time, at most. It is
// a small part of those that are kept.
const maxMetaAhead = 64

// cursor reads the content of a table from some point on.
type cursor struct {
	m     *Image
	table *table
	block []byte
	off   int    // in the block
	at    int64  // offset in the image of the block
	next  int64  // and of the one after it
	joint []byte // holds what crosses the border of two blocks
}

var errTableEnd = errors.New("reaches past the end of its table")

// cursor returns a cursor at an offset in the block that starts so many bytes
// after the start of the table.
func (m *Image) cursor(t *table, block uint64, offset int) (cursor, error) {
	if block > uint64(t.end-t.start) {
		return cursor{}, invalid(t.name, errTableEnd)
	}
	c := cursor{m: m, table: t, next: t.start + int64(block)}
	if err := c.advance(); err != nil {
		return c, err
	}
	if offset > len(c.block) {
		return c, invalid(t.name, fmt.Errorf("offset %d lies outside of its block", offset))
	}
	c.off = offset
	return c, nil
}

func (c *cursor) advance() (err error) {
	c.at, c.off = c.next, 0
	c.block, c.next, err = c.m.metaBlock(c.table, c.at)
	return err
}

// take returns the next n bytes. They are valid until the next call.
func (c *cursor) take(n int) ([]byte, error) {
	if end := c.off + n; end <= len(c.block) {
		b := c.block[c.off:end:end]
		c.off = end
		return b, nil
	}
	c.joint = c.joint[:0]
	for {
		part := c.block[c.off:]
		part = part[:min(n-len(c.joint), len(part))]
		c.joint = append(c.joint, part...)
		c.off += len(part)
		if len(c.joint) == n {
			return c.joint, nil
		}
		if err := c.advance(); err != nil {
			return nil, err
		}
	}
}

// position is a place in a table.
type position struct {
	block  uint64 // where it starts, after the start of the table
	offset int
}

// position returns where the next byte is.
func (c *cursor) position() position {
	if c.off == len(c.block) {
		return position{uint64(c.next - c.table.start), 0}
	}
	return position{uint64(c.at - c.table.start), c.off}
}

// metaBlock returns the content of the metadata block at an offset of the image.
func (m *Image) metaBlock(t *table, at int64) ([]byte, int64, error) {
	if at < t.start || at+metaHeader > t.end {
		return nil, 0, invalid(t.name, errTableEnd)
	}
	data, next, err := m.meta.recent(blockKey{at: at})
	if data == nil {
		data, next, err = m.meta.get(blockKey{at: at}, func() ([]byte, int64, error) { return m.loadMeta(t, at) })
		if err == nil {
			m.metaAhead(t, next)
		}
	}
	if err == nil && next > t.end {
		return nil, 0, invalid(t.name, errTableEnd)
	}
	return data, next, err
}

// metaAhead has blocks of a table decoded on another goroutine, from one on that is
// asked for next, if directories are listed. It takes longer to wake a processor than to
// decode a block, so each time they are twice as many.
func (m *Image) metaAhead(t *table, at int64) {
	count := m.metaBlocks.Load()
	if count == 0 || at+metaHeader > t.end || m.meta.has(blockKey{at: at}) {
		return
	}
	m.goAhead(func() {
		m.metaBlocks.Store(min(2*count, maxMetaAhead))
		for n := int32(0); n < count && at+metaHeader <= t.end; n++ {
			from := at
			b := m.meta.block(blockKey{at: from}, func() ([]byte, int64, error) { return m.loadMeta(t, from) })
			if b.err != nil { // it is met again by whoever reads the block
				return
			}
			at = b.next
		}
	})
}

// loadMeta reads header and content at once: a read may be a round trip.
func (m *Image) loadMeta(t *table, at int64) ([]byte, int64, error) {
	buf := m.buffer(metaHeader + metaSize)
	defer m.buffers.Put(buf)
	raw := (*buf)[:min(metaHeader+metaSize, t.end-at)]
	if err := m.readAt(raw, at); err != nil {
		return nil, 0, err
	}
	head := binary.LittleEndian.Uint16(raw)
	size := int(head &^ metaRaw)
	if size == 0 || size > len(raw)-metaHeader {
		return nil, 0, invalid(t.name, fmt.Errorf("block of %d bytes at %d does not fit", size, at))
	}
	raw = raw[metaHeader : metaHeader+size]
	next := at + metaHeader + int64(size)
	if head&metaRaw != 0 {
		return append([]byte(nil), raw...), next, nil
	}
	content := make([]byte, metaSize)
	n, err := decodeSafely(m.decoder, content, raw)
	if err != nil || n == 0 {
		return nil, 0, invalid(t.name, fmt.Errorf("block at %d: %w", at, errors.Join(err, emptyBlock(n))))
	}
	return content[:n], next, nil
}

func emptyBlock(n int) error {
	if n > 0 {
		return nil
	}
	return errors.New("it is empty")
}

// readAt fills b, which the caller knows to lie inside the image.
func (m *Image) readAt(b []byte, at int64) error {
	n, err := m.r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes of the image at %d: %w", len(b), at, err)
}

// buffer returns a buffer of at least n bytes; its owner puts it back.
func (m *Image) buffer(n int) *[]byte {
	if b, ok := m.buffers.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, max(n, metaHeader+metaSize, int(m.sb.BlockSize)))
	return &b
}

// lookupTable is a table of entries of one size, reached by a list of pointers
// to its blocks.
type lookupTable struct {
	table
	m        *Image
	entry    int      // bytes of an entry
	count    int      // entries
	after    int64    // bytes between the last block and the pointers
	pointers []uint64 // to the blocks, in the image
}

// lookupTable reads the pointers of a table, which stand at an offset of the
// image. The blocks must lie before them and after start.
func (m *Image) lookupTable(name string, start, at int64, entry, count int) (lookupTable, error) {
	t := lookupTable{table: table{name, start, at}, m: m, entry: entry, count: count}
	perBlock := metaSize / entry
	blocks := int64((count + perBlock - 1) / perBlock)
	if at+blocks*pointerSize > int64(m.sb.BytesUsed) {
		return t, invalid(name, errTableEnd)
	}
	raw := make([]byte, blocks*pointerSize)
	if err := m.readAt(raw, at); err != nil {
		return t, err
	}
	t.pointers = make([]uint64, blocks)
	for i := range t.pointers {
		t.pointers[i] = binary.LittleEndian.Uint64(raw[i*pointerSize:])
	}
	return t, nil
}

// get returns an entry, valid until the cache drops its block.
func (t *lookupTable) get(i uint32) ([]byte, error) {
	if int64(i) >= int64(t.count) {
		return nil, invalid(t.name, fmt.Errorf("there is no entry %d", i))
	}
	perBlock := metaSize / t.entry
	at := t.pointers[int(i)/perBlock]
	if at > uint64(t.end) {
		return nil, invalid(t.name, errTableEnd)
	}
	block, _, err := t.m.metaBlock(t.upTo(int(i)/perBlock+1), int64(at))
	if err != nil {
		return nil, err
	}
	off := int(i) % perBlock * t.entry
	if off+t.entry > len(block) {
		return nil, invalid(t.name, fmt.Errorf("entry %d lies outside of its block", i))
	}
	return block[off : off+t.entry], nil
}

// upTo returns the table as far as a block of it, so that no more is read of an image
// far away than the blocks before. Pointers that are not in order say nothing.
func (t *lookupTable) upTo(block int) *table {
	part := t.table
	if block < len(t.pointers) && t.pointers[block-1] < t.pointers[block] && t.pointers[block] < uint64(t.end) {
		part.end = int64(t.pointers[block])
	}
	return &part
}

// prepareTables arranges for the tables to be opened when first needed.
func (m *Image) prepareTables() {
	end := func(candidates ...uint64) int64 {
		for _, c := range candidates {
			if c != noTable {
				return int64(c)
			}
		}
		return int64(m.sb.BytesUsed)
	}
	m.inodeTable = table{"inode table", int64(m.sb.InodeTable), int64(m.sb.DirectoryTable)}
	m.directoryTable = table{"directory table", int64(m.sb.DirectoryTable), end(m.sb.FragmentTable, m.sb.ExportTable, m.sb.IDTable)}
	m.fragments = sync.OnceValues(func() (lookupTable, error) {
		if m.sb.FragmentTable == noTable {
			return lookupTable{table: table{name: "fragment table"}}, nil
		}
		return m.lookupTable("fragment table", m.directoryTable.start, int64(m.sb.FragmentTable), fragmentEntrySize, int(m.sb.Fragments))
	})
	m.ids = sync.OnceValues(m.loadIDs)
	m.xattrs = sync.OnceValues(m.loadXattrTable)
}

func (m *Image) idTable() (lookupTable, error) {
	return m.lookupTable("id table", m.directoryTable.start, int64(m.sb.IDTable), idEntrySize, int(m.sb.IDs))
}

func (m *Image) loadIDs() ([]uint32, error) {
	t, err := m.idTable()
	if err != nil {
		return nil, err
	}
	ids := make([]uint32, t.count)
	for i := range ids {
		entry, err := t.get(uint32(i))
		if err != nil {
			return nil, err
		}
		ids[i] = binary.LittleEndian.Uint32(entry)
	}
	return ids, nil
}
