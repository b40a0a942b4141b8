package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxXattrSize bounds a value, and all values of one file together. The kernel
// takes no value above 64 KiB.
const (
	maxXattrSize  = 64 << 10
	maxXattrTotal = 1 << 20
)

// xattrTable holds the extended attributes of an image.
type xattrTable struct {
	sets   lookupTable
	values table
}

func (m *Image) loadXattrTable() (xattrTable, error) {
	const name = "extended attribute table"
	var t xattrTable
	if m.sb.XattrTable == noTable {
		return t, nil
	}
	at := int64(m.sb.XattrTable)
	if at+xattrHeaderSize > int64(m.sb.BytesUsed) {
		return t, invalid(name, errTableEnd)
	}
	head := make([]byte, xattrHeaderSize)
	if err := m.readAt(head, at); err != nil {
		return t, err
	}
	start, count := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint32(head[8:])
	if start > m.sb.XattrTable || start < m.sb.IDTable {
		return t, invalid(name, errTableEnd)
	}
	var err error
	t.sets, err = m.lookupTable(name, int64(start), at+xattrHeaderSize, xattrEntrySize, int(count))
	t.sets.after = xattrHeaderSize
	t.values = table{name, int64(start), at}
	return t, err
}

// xattrsOf returns the extended attributes of an inode, in the image's order.
func (m *Image) xattrsOf(i *inode) ([]xattr, error) {
	if i.xattr == noXattrs {
		return nil, nil
	}
	t, err := m.xattrs()
	if err != nil {
		return nil, err
	}
	head, err := t.sets.get(i.xattr)
	if err != nil {
		return nil, err
	}
	f := fields{head}
	ref, count := f.u64(), f.u32()
	c, err := m.cursor(&t.values, ref>>16, int(ref&0xffff))
	if err != nil {
		return nil, err
	}
	var all []xattr
	total := 0
	for range count {
		x, err := m.readXattr(&t, &c)
		if err != nil {
			return nil, err
		}
		if total += len(x.name) + len(x.value); total > maxXattrTotal {
			return nil, invalid(t.values.name, errors.New("a file has more than 1 MiB of attributes"))
		}
		all = append(all, x)
	}
	return all, nil
}

func (m *Image) readXattr(t *xattrTable, c *cursor) (x xattr, err error) {
	head, err := c.take(4)
	if err != nil {
		return x, err
	}
	f := fields{head}
	kind, size := f.u16(), int(f.u16())
	prefix := int(kind & xattrPrefixMask)
	if prefix >= len(xattrPrefixes) || size == 0 || size > maxNameLen {
		return x, invalid(t.values.name, fmt.Errorf("type %#x with a name of %d bytes", kind, size))
	}
	name, err := c.take(size)
	if err != nil {
		return x, err
	}
	x.name = xattrPrefixes[prefix] + string(name)
	x.value, err = readXattrValue(c, t)
	if err != nil || kind&xattrOutOfLine == 0 {
		return x, err
	}
	if len(x.value) != 8 {
		return x, invalid(t.values.name, fmt.Errorf("a reference of %d bytes", len(x.value)))
	}
	ref := binary.LittleEndian.Uint64(x.value)
	elsewhere, err := m.cursor(&t.values, ref>>16, int(ref&0xffff))
	if err != nil {
		return x, err
	}
	x.value, err = readXattrValue(&elsewhere, t)
	return x, err
}

func readXattrValue(c *cursor, t *xattrTable) ([]byte, error) {
	head, err := c.take(4)
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head)
	if size > maxXattrSize {
		return nil, invalid(t.values.name, fmt.Errorf("a value of %d bytes", size))
	}
	value, err := c.take(int(size))
	return append([]byte{}, value...), err
}
