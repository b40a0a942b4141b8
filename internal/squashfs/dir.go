package squashfs

import (
	"bytes"
	"errors"
	"fmt"
)

// dirent is an entry of a directory's listing.
type dirent struct {
	name   string
	ref    uint64
	number uint32
	kind   uint16
}

// list calls f for each entry of a directory, in the order of names.
func (m *Image) list(dir *inode, f func(dirent) error) error {
	l, err := m.listing(dir, 0, uint64(dir.block), int(dir.listOffset))
	if err != nil {
		return err
	}
	for {
		d, more, err := l.next()
		if err != nil || !more {
			return err
		}
		if err := f(d); err != nil {
			return err
		}
	}
}

// listingReader reads a listing entry by entry.
type listingReader struct {
	c      cursor
	left   int64 // bytes of the listing that are to come
	run    int   // entries left below the present header
	block  uint32
	number uint32 // of the header: entries give differences to it
	count  int
	limit  int

	last     [maxNameLen + 1]byte // the name before
	lastSize int
}

// listing starts a reader at so many bytes in a directory's listing.
func (m *Image) listing(dir *inode, at int64, block uint64, offset int) (l listingReader, err error) {
	l.left, l.limit = dir.size-at, m.limits.DirEntries
	if l.left <= 0 {
		return l, nil
	}
	l.c, err = m.cursor(&m.directoryTable, block, offset)
	return l, err
}

func (l *listingReader) take(n int) ([]byte, error) {
	if l.left -= int64(n); l.left < 0 {
		return nil, invalid("directory", errors.New("its listing is cut short"))
	}
	return l.c.take(n)
}

func (l *listingReader) next() (d dirent, more bool, err error) {
	d, name, err := l.entry()
	if err != nil || name == nil {
		return d, false, err
	}
	d.name = string(name)
	return d, true, nil
}

// entry returns the next entry without its name, and the name, which is valid
// until the next call and nil at the end.
func (l *listingReader) entry() (d dirent, name []byte, err error) {
	if d, name, err = l.raw(); err == nil && name != nil {
		err = l.check(name, d.kind)
	}
	return d, name, err
}

// raw is entry for who looks for a name: what it returns is not checked.
func (l *listingReader) raw() (d dirent, name []byte, err error) {
	if l.run == 0 {
		if l.left == 0 {
			return d, nil, nil
		}
		if err := l.header(); err != nil {
			return d, nil, err
		}
	}
	l.run--
	head, err := l.take(dirEntrySize)
	if err != nil {
		return d, nil, err
	}
	f := fields{head}
	offset, delta, kind, size := f.u16(), int16(f.u16()), f.u16(), int(f.u16())+1
	d.ref = uint64(l.block)<<16 | uint64(offset)
	d.number, d.kind = l.number+uint32(delta), kind
	if size > maxNameLen+1 {
		return d, nil, invalid("directory", fmt.Errorf("a name of %d bytes", size))
	}
	if name, err = l.take(size); err != nil {
		return d, nil, err
	}
	return d, name, nil
}

func (l *listingReader) header() error {
	head, err := l.take(dirHeaderSize)
	if err != nil {
		return err
	}
	f := fields{head}
	count := f.u32()
	l.block, l.number = f.u32(), f.u32()
	if count >= dirRun {
		return invalid("directory", fmt.Errorf("%d entries below one header", uint64(count)+1))
	}
	l.run = int(count) + 1
	return nil
}

// skipTo goes on to where an entry of the index leads, past the first name there.
// It tells whether a header with that name below it stands at the place.
func (l *listingReader) skipTo(dir *inode, x indexEntry, name string) (bool, error) {
	for dir.size-l.left < int64(x.at) {
		if _, at, err := l.entry(); err != nil || at == nil {
			return false, err
		}
	}
	if l.run != 0 || dir.size-l.left != int64(x.at) || l.left == 0 || l.c.position().block != x.block {
		return false, nil
	}
	_, at, err := l.entry()
	return string(at) == name, err
}

// check refuses what no file system could hold, and what would let a name mean
// two things.
func (l *listingReader) check(name []byte, kind uint16) error {
	l.count++
	switch {
	case name[0] == '.' && (len(name) == 1 || len(name) == 2 && name[1] == '.'), bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0:
		return invalid("directory", fmt.Errorf("the name %q", string(name)))
	case bytes.Compare(name, l.last[:l.lastSize]) <= 0:
		return invalid("directory", fmt.Errorf("the name %q after %q", string(name), string(l.last[:l.lastSize])))
	case kind < typeDir || kind > typeSocket:
		return invalid("directory", fmt.Errorf("%q has type %d", string(name), kind))
	case l.count > l.limit:
		return invalid("directory", fmt.Errorf("more entries than the limit of %d", l.limit))
	}
	l.lastSize = copy(l.last[:], name)
	return nil
}

// find returns the entry of a name, if the directory has one.
func (m *Image) find(dir *inode, name string) (dirent, bool, error) {
	l, err := m.seek(dir, name)
	if err != nil {
		return dirent{}, false, err
	}
	for {
		d, at, err := l.raw()
		if err != nil || at == nil || string(at) > name {
			return dirent{}, false, err
		}
		if string(at) == name {
			d.name = name
			return d, true, l.check(at, d.kind)
		}
	}
}

// seek starts a listing at the last header that the directory's index has before
// a name.
func (m *Image) seek(dir *inode, name string) (listingReader, error) {
	at, block := int64(0), uint64(dir.block)
	if dir.indexed == 0 {
		return m.listing(dir, at, block, int(dir.listOffset))
	}
	c, err := m.cursor(&m.inodeTable, dir.rest.block, dir.rest.offset)
	if err != nil {
		return listingReader{}, err
	}
	for range dir.indexed {
		x, first, err := readIndexEntry(&c)
		if err != nil {
			return listingReader{}, err
		}
		if string(first) > name {
			break
		}
		if int64(x.at) >= dir.size {
			return listingReader{}, invalid("directory", fmt.Errorf("its index points to %d of %d", x.at, dir.size))
		}
		at, block = int64(x.at), x.block
	}
	return m.listing(dir, at, block, int((int64(dir.listOffset)+at)%metaSize))
}

// readIndexEntry returns an entry of an index without its name, and the name,
// which is valid until more is taken.
func readIndexEntry(c *cursor) (x indexEntry, name []byte, err error) {
	head, err := c.take(dirIndexSize)
	if err != nil {
		return x, nil, err
	}
	f := fields{head}
	x.at, x.block = f.u32(), uint64(f.u32())
	size := f.u32()
	if size > maxNameLen {
		return x, nil, invalid("directory", fmt.Errorf("a name of %d bytes in its index", uint64(size)+1))
	}
	name, err = c.take(int(size) + 1)
	return x, name, err
}

// root reads the inode of the root directory.
func (m *Image) root() (*inode, error) {
	i, err := m.inode(m.sb.Root)
	if err != nil {
		return nil, err
	}
	if i.kind != typeDir {
		return nil, invalid("root", errors.New("it is not a directory"))
	}
	return i, m.claim(i, "")
}

// child reads the inode of an entry.
//
// Here it is made sure that directories form a tree, so that every walk ends: an
// inode number belongs to one directory only, which names as its parent the one
// directory that lists it, and has one name there.
func (m *Image) child(dir *inode, d dirent) (*inode, error) {
	i := new(inode)
	return i, m.readChild(i, dir, d)
}

func (m *Image) readChild(i, dir *inode, d dirent) error {
	if err := m.readInode(i, d.ref); err != nil {
		return err
	}
	if i.number != d.number || i.kind != d.kind {
		return invalid("directory", fmt.Errorf("%q is inode %d of type %d, and listed as inode %d of type %d", d.name, i.number, i.kind, d.number, d.kind))
	}
	if i.kind != typeDir {
		return nil
	}
	if i.parent != dir.number {
		return invalid("directory", fmt.Errorf("%q in directory %d says that its parent is %d", d.name, dir.number, i.parent))
	}
	return m.claim(i, d.name)
}

// claimed says where the inode of a directory was found, and under what name.
type claimed struct {
	ref  uint64
	name string
}

func (m *Image) claim(dir *inode, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, taken := m.dirs[dir.number]
	if taken && (c.ref != dir.ref || c.name != name) {
		return invalid("directory", fmt.Errorf("%q and %q are both inode %d", c.name, name, dir.number))
	}
	if !taken {
		m.dirs[dir.number] = claimed{dir.ref, name}
	}
	return nil
}
