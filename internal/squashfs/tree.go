package squashfs

import (
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a directory tree that is to be packed.
type tree struct {
	path  string // of the root in the file system
	root  *node
	nodes []*node // by inode number, which starts at 1
	xattr xattrSets

	files      int   // directory entries that are not directories
	links      int   // further names of a file
	inputBytes int64 // content of all files, each counted once
}

// node is an object of the tree. Hard links to it share it.
type node struct {
	parent *node  // directory in which it was first found; nil for the root
	name   string // its first name
	stamp  stamp
	holes  bool // the file takes less space than its size
	opened bool // its extended attributes have been read

	mode     uint32 // st_mode, with the type
	uid, gid uint32
	rdev     uint64
	nlink    uint32 // names inside the tree; for directories as stat counts
	number   uint32
	xattrs   []xattr
	xattrSet uint32 // noXattrs if it has none

	target  string  // of a symbolic link
	entries []entry // of a directory, sorted by name
	small   int64   // bytes of small files in a directory and below it
	file    *file   // of a regular file

	ref    uint64 // where its inode is, once it is placed
	placed bool
}

// entry is a name in a directory.
type entry struct {
	name string
	node *node
}

// file is the content of a regular file: where the image holds it.
type file struct {
	start    int64    // of the first block
	words    []uint32 // size words of the blocks
	sparse   int64    // bytes in blocks that are all zero
	fragment uint32   // noFragment if none
	offset   uint32   // in the fragment

	twin *node // an earlier file with the same content, which this one shares
}

// stamp tells whether a file is still the one that was scanned.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{
		dev: st.Dev, ino: st.Ino, size: st.Size,
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}
}

func (n *node) kind() uint32    { return n.mode & unix.S_IFMT }
func (n *node) isDir() bool     { return n.kind() == unix.S_IFDIR }
func (n *node) isRegular() bool { return n.kind() == unix.S_IFREG }

// direntType returns the basic inode type.
func (n *node) direntType() uint16 {
	switch n.kind() {
	case unix.S_IFDIR:
		return typeDir
	case unix.S_IFREG:
		return typeFile
	case unix.S_IFLNK:
		return typeSymlink
	case unix.S_IFBLK:
		return typeBlockDevice
	case unix.S_IFCHR:
		return typeCharDevice
	case unix.S_IFIFO:
		return typeFifo
	}
	return typeSocket
}

// relative returns the node's path below the root, "." for the root itself.
func (n *node) relative() string {
	if n.parent == nil {
		return "."
	}
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

func (t *tree) pathOf(n *node) string { return filepath.Join(t.path, n.relative()) }

// number gives each node its inode number, in an order that depends on names
// only: the children of a directory follow each other, so that a listing can
// name them by small differences. It also counts links and what the tree holds.
func (t *tree) number() {
	t.root.number, t.root.nlink = 1, 2
	t.nodes = []*node{t.root}
	var visit func(dir *node)
	visit = func(dir *node) {
		for _, e := range dir.entries {
			n := e.node
			if n.number == 0 {
				t.nodes = append(t.nodes, n)
				n.number = uint32(len(t.nodes))
			}
			t.count(dir, n)
		}
		for _, e := range dir.entries {
			if e.node.isDir() {
				visit(e.node)
			}
		}
	}
	visit(t.root)
}

func (t *tree) count(dir, n *node) {
	if n.isDir() {
		dir.nlink++
		n.nlink = 2
		return
	}
	n.nlink++
	t.files++
	switch {
	case n.nlink > 1:
		t.links++
	case n.isRegular():
		t.inputBytes += n.stamp.size
	}
}

// contents returns the regular files in the order in which the image holds their
// content: each directory's own files first, then those below it. The files of a
// directory are in order of their kinds, as far as names tell: what is alike
// packs better side by side.
func (t *tree) contents() []*node {
	var all []*node
	for _, n := range t.nodes {
		if n.isRegular() {
			all = append(all, n)
		}
	}
	byKind := func(a, b *node) int { return strings.Compare(filepath.Ext(a.name), filepath.Ext(b.name)) }
	for rest := all; len(rest) > 0; {
		end := slices.IndexFunc(rest, func(n *node) bool { return n.parent != rest[0].parent })
		if end < 0 {
			end = len(rest)
		}
		slices.SortStableFunc(rest[:end], byKind)
		rest = rest[end:]
	}
	return all
}
