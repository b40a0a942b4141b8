package squashfs

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

// inodeWriter writes the inode and the directory table.
//
// A listing names inodes by position, and a directory's inode names its
// listing, so a directory is written after all below it. The inodes of all
// children of a directory follow each other, in the order of its listing, which
// keeps the listing's headers few and makes "ls -l" touch neighbouring blocks.
type inodeWriter struct {
	time   uint32
	ids    *idTable
	inodes *metaWriter
	dirs   *metaWriter
	count  uint32 // of inodes in the image
	buf    []byte
}

// tree writes all inodes, the root's last.
func (w *inodeWriter) tree(root *node) error {
	l, err := w.below(root)
	if err != nil {
		return err
	}
	return w.directory(root, w.count+1, l)
}

// below writes the inodes of all children of dir, then its listing.
func (w *inodeWriter) below(dir *node) (listing, error) {
	listings := map[*node]listing{}
	for _, e := range dir.entries {
		if e.node.isDir() {
			l, err := w.below(e.node)
			if err != nil {
				return listing{}, err
			}
			listings[e.node] = l
		}
	}
	for _, e := range dir.entries {
		var err error
		switch n := e.node; {
		case n.isDir():
			err = w.directory(n, dir.number, listings[n])
		case !n.placed:
			err = w.other(n)
		}
		if err != nil {
			return listing{}, err
		}
	}
	return writeListing(w.dirs, dir), nil
}

func (w *inodeWriter) directory(n *node, parent uint32, l listing) error {
	size := uint64(l.size) + dirListingPadding
	if size > math.MaxUint32 || l.block > math.MaxUint32 {
		return fault.New(fault.Invalid, "directory %s is too large for squashfs", n.relative())
	}
	if size <= math.MaxUint16 && len(l.index) == 0 && n.xattrSet == noXattrs {
		if err := w.start(n, typeDir); err != nil {
			return err
		}
		w.u32(uint32(l.block), n.nlink)
		w.u16(uint16(size), l.offset)
		w.u32(parent)
		w.put(n)
		return nil
	}
	if err := w.start(n, typeDir+extended); err != nil {
		return err
	}
	w.u32(n.nlink, uint32(size), uint32(l.block), parent)
	w.u16(uint16(len(l.index)), l.offset)
	w.u32(n.xattrSet)
	for _, x := range l.index {
		w.u32(x.at, uint32(x.block), uint32(len(x.name)-1))
		w.buf = append(w.buf, x.name...)
	}
	w.put(n)
	return nil
}

// other writes the inode of what is not a directory.
func (w *inodeWriter) other(n *node) error {
	if n.isRegular() {
		return w.regular(n)
	}
	kind := n.direntType()
	plain := kind
	if n.xattrSet != noXattrs {
		kind += extended
	}
	if err := w.start(n, kind); err != nil {
		return err
	}
	w.u32(n.nlink)
	switch plain {
	case typeSymlink:
		w.u32(uint32(len(n.target)))
		w.buf = append(w.buf, n.target...)
	case typeBlockDevice, typeCharDevice:
		major, minor := unix.Major(n.rdev), unix.Minor(n.rdev)
		w.u32(major<<8 | minor&0xff | minor&^0xff<<12)
	}
	if kind != plain {
		w.u32(n.xattrSet)
	}
	w.put(n)
	return nil
}

func (w *inodeWriter) regular(n *node) error {
	f, size := n.file, uint64(n.stamp.size)
	if f.twin != nil {
		f = f.twin.file
	}
	if size <= math.MaxUint32 && f.start <= math.MaxUint32 && f.sparse == 0 && n.nlink == 1 && n.xattrSet == noXattrs {
		if err := w.start(n, typeFile); err != nil {
			return err
		}
		w.u32(uint32(f.start), f.fragment, f.offset, uint32(size))
	} else {
		if err := w.start(n, typeFile+extended); err != nil {
			return err
		}
		// Readers take a file that is nothing but holes for an error.
		sparse := uint64(f.sparse)
		if sparse > 0 && sparse >= size {
			sparse = size - 1
		}
		w.u64(uint64(f.start), size, sparse)
		w.u32(n.nlink, f.fragment, f.offset, n.xattrSet)
	}
	w.u32(f.words...)
	w.put(n)
	return nil
}

// start begins an inode with what all types have.
func (w *inodeWriter) start(n *node, kind uint16) error {
	uid, err := w.ids.index(n.uid)
	if err != nil {
		return err
	}
	gid, err := w.ids.index(n.gid)
	if err != nil {
		return err
	}
	w.buf = w.buf[:0]
	w.u16(kind, uint16(n.mode&0o7777), uid, gid)
	w.u32(w.time, n.number)
	return nil
}

func (w *inodeWriter) put(n *node) {
	n.ref = w.inodes.ref()
	n.placed = true
	w.inodes.write(w.buf)
}

func (w *inodeWriter) u16(vs ...uint16) {
	for _, v := range vs {
		w.buf = binary.LittleEndian.AppendUint16(w.buf, v)
	}
}

func (w *inodeWriter) u32(vs ...uint32) {
	for _, v := range vs {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, v)
	}
}

func (w *inodeWriter) u64(vs ...uint64) {
	for _, v := range vs {
		w.buf = binary.LittleEndian.AppendUint64(w.buf, v)
	}
}
