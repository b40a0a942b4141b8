package squashfs

import (
	"errors"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Node is a file, directory or other object of an image, for programs that serve
// it as a file system: they know objects by numbers, not by paths.
type Node struct {
	m *Image
	i *inode
}

// Root returns the root directory.
func (m *Image) Root() (Node, error) {
	i, err := m.root()
	return Node{m, i}, err
}

// Node returns the node whose Ref is ref.
func (m *Image) Node(ref uint64) (Node, error) {
	i, err := m.inode(ref)
	return Node{m, i}, err
}

// Ref names the node in its image: it is below 1<<48, and the same for all names
// of the node.
func (n Node) Ref() uint64 { return n.i.ref }

// Number returns the node's inode number, which is never 0.
func (n Node) Number() uint32 { return n.i.number }

// Target returns where a symbolic link leads, "" for all else.
func (n Node) Target() string { return n.i.target }

// Type returns the type bits of the node's mode.
func (n Node) Type() fs.FileMode { return fileModes[n.i.kind] }

// Attr is what an image says of a node.
type Attr struct {
	Stat
	Mode uint16 // permissions, setuid, setgid and sticky bit, as stat(2) has them
	Size int64  // as the kernel tells it: of a directory, what the image says
	Time time.Time
}

// Attr describes the node.
func (n Node) Attr() (Attr, error) {
	owner, err := n.m.owner(n.i)
	if err != nil {
		return Attr{}, err
	}
	a := Attr{Stat: n.i.stat(owner), Mode: n.i.perm, Size: n.i.size, Time: timeOf(n.i.mtime)}
	if n.i.kind == typeDir {
		a.Size += dirListingPadding
	}
	return a, nil
}

// Lookup returns the node of a name in a directory; the error is fs.ErrNotExist
// if there is none.
func (n Node) Lookup(name string) (Node, error) {
	i, err := n.m.step(n.i, name)
	return Node{n.m, i}, err
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Xattrs returns the node's extended attributes.
func (n Node) Xattrs() ([]Xattr, error) {
	all, err := n.m.xattrsOf(n.i)
	list := make([]Xattr, 0, len(all))
	for _, x := range all {
		list = append(list, Xattr{x.name, x.value})
	}
	return list, err
}

// HasXattrs tells whether any file of the image may have extended attributes.
func (m *Image) HasXattrs() bool { return m.sb.XattrTable != noTable }

// Entry is one of a directory's entries.
type Entry struct {
	Name   string
	Number uint32 // inode number
	Type   fs.FileMode
	d      dirent
}

// Listing goes through a directory, in the order of names. It holds no more of it
// than a block.
type Listing struct {
	dir    Node
	reader listingReader
}

// List begins to list a directory.
func (n Node) List() (*Listing, error) {
	if n.i.kind != typeDir {
		return nil, errNotDir
	}
	reader, err := n.m.listing(n.i, 0, uint64(n.i.block), int(n.i.listOffset))
	return &Listing{n, reader}, err
}

// Next returns the next entry, if there is one.
func (l *Listing) Next() (e Entry, more bool, err error) {
	d, more, err := l.reader.next()
	if err != nil || !more {
		return e, false, err
	}
	return Entry{d.name, d.number, fileModes[d.kind], d}, true, nil
}

// Node returns the node of an entry.
func (l *Listing) Node(e Entry) (Node, error) {
	i, err := l.dir.m.child(l.dir.i, e.d)
	return Node{l.dir.m, i}, err
}

// Content reads a file by blocks that are shared with the image's cache. It is
// safe for concurrent use.
type Content struct{ c *content }

// Content returns the content of a regular file.
func (n Node) Content() (*Content, error) {
	if n.i.kind != typeFile {
		return nil, fs.ErrInvalid
	}
	c, err := n.m.content(n.i)
	return &Content{c}, err
}

// Cost is roughly how many bytes of memory the content's table of blocks takes.
func (c *Content) Cost() int { return 256 + 12*len(c.c.words) }

// Slices returns up to n bytes from off on, in parts that nobody may write to;
// less only at the end of the file.
func (c *Content) Slices(off int64, n int) ([][]byte, error) {
	if off < 0 {
		return nil, errors.New("negative offset")
	}
	blockSize := int64(c.c.m.sb.BlockSize)
	var parts [][]byte
	for n > 0 && off < c.c.i.size {
		k, skip := int(off/blockSize), int(off%blockSize)
		block, err := c.block(k)
		if err != nil {
			return nil, err
		}
		part := block[skip:min(len(block), skip+n)]
		parts = append(parts, part)
		off, n = off+int64(len(part)), n-len(part)
	}
	return parts, nil
}

func (c *Content) block(k int) ([]byte, error) {
	if !c.c.hole(k) {
		return c.c.cached(k)
	}
	m := c.c.m
	m.zeroOnce.Do(func() { m.zeros = make([]byte, m.sb.BlockSize) })
	return m.zeros[:c.c.blockLen(k)], nil
}

// Ahead decodes the block after the one at off on another goroutine, for sequential
// readers. It does nothing if all processors are already busy with that.
func (c *Content) Ahead(off int64) {
	k := int(off/int64(c.c.m.sb.BlockSize)) + 1
	if k >= len(c.c.words) || c.c.hole(k) || c.c.m.data.has(c.c.key(k)) {
		return
	}
	c.c.m.goAhead(func() {
		_, _ = c.c.cached(k) // an error is met again by whoever reads the block
	})
}

// readAhead is what the image needs to decode blocks before they are asked for.
type readAhead struct {
	ahead      chan struct{}
	running    sync.WaitGroup // what decodes ahead
	metaBlocks atomic.Int32   // of a table, to be decoded ahead next time; 0 until directories are listed
	zeroOnce   sync.Once
	zeros      []byte // of one block
}

func newReadAhead() readAhead {
	return readAhead{ahead: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// goAhead runs f on another goroutine, unless as many as there are processors run.
func (r *readAhead) goAhead(f func()) {
	select {
	case r.ahead <- struct{}{}:
	default:
		return
	}
	r.running.Go(func() {
		defer func() { <-r.ahead }()
		f()
	})
}
