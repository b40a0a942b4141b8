package squashfs

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

// scanner reads the directory tree that is to be packed.
type scanner struct {
	root    string
	exclude []string
	owner   *Owner
	avoid   stamp // the image itself, which must not be inside the tree
	group   *errgroup.Group
	ctx     context.Context
}

func scan(ctx context.Context, root string, o *WriteOptions, avoid stamp) (*tree, error) {
	for _, pattern := range o.Exclude {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fault.New(fault.Usage, "exclude pattern %q: %w", pattern, err)
		}
	}
	s := &scanner{root: root, exclude: o.Exclude, owner: o.ForceOwner, avoid: avoid}
	s.group, s.ctx = errgroup.WithContext(ctx)
	s.group.SetLimit(o.Workers)
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(root, &st) }); err != nil {
		return nil, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fault.New(fault.Usage, "%s is not a directory", root)
	}
	top, err := s.node(nil, "", root, &st)
	if err != nil {
		return nil, err
	}
	err = s.directory(top, root)
	if waited := s.group.Wait(); waited != nil {
		err = waited
	}
	if err != nil {
		return nil, err
	}
	return plant(root, top)
}

// plant turns what was scanned into a tree: hard links are joined, inodes
// numbered, extended attributes gathered.
func plant(root string, top *node) (*tree, error) {
	t := &tree{path: root, root: top}
	joinLinks(top, map[[2]uint64]*node{})
	t.number()
	for _, n := range t.nodes {
		if n.nlink > maxLinks && !n.isDir() {
			return nil, fault.New(fault.Invalid, "%s has %d hard links in the tree, more than %d", n.relative(), n.nlink, maxLinks)
		}
		n.xattrSet = t.xattr.add(n.xattrs)
	}
	return t, nil
}

// joinLinks makes directory entries of the same file share a node.
func joinLinks(dir *node, seen map[[2]uint64]*node) {
	for i, e := range dir.entries {
		if e.node.isDir() || e.node.nlink < 2 {
			e.node.nlink = 0
			continue
		}
		key := [2]uint64{e.node.stamp.dev, e.node.stamp.ino}
		if first := seen[key]; first != nil {
			dir.entries[i].node = first
			continue
		}
		e.node.nlink = 0
		seen[key] = e.node
	}
	for _, e := range dir.entries {
		if e.node.isDir() {
			joinLinks(e.node, seen)
		}
	}
}

// directory fills in the entries of dir and of all directories below it.
func (s *scanner) directory(dir *node, name string) error {
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", name, err)
	}
	slices.Sort(names)
	dir.entries = make([]entry, 0, len(names))
	for _, child := range names {
		full := filepath.Join(name, child)
		if s.excluded(full) {
			continue
		}
		var st unix.Stat_t
		err := retry(func() error { return unix.Fstatat(int(f.Fd()), child, &st, unix.AT_SYMLINK_NOFOLLOW) })
		if err != nil {
			return changed(full, &os.PathError{Op: "lstat", Path: full, Err: err})
		}
		n, err := s.node(dir, child, full, &st)
		if err != nil {
			return err
		}
		dir.entries = append(dir.entries, entry{child, n})
	}
	return s.below(dir, name)
}

// below scans the subdirectories of dir, on other goroutines as far as the
// limit allows.
func (s *scanner) below(dir *node, name string) error {
	for _, e := range dir.entries {
		if !e.node.isDir() {
			continue
		}
		full := filepath.Join(name, e.name)
		if s.group.TryGo(func() error { return s.directory(e.node, full) }) {
			continue
		}
		if err := s.directory(e.node, full); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) node(parent *node, name, full string, st *unix.Stat_t) (*node, error) {
	n := &node{
		parent: parent, name: name, stamp: stampOf(st),
		mode: st.Mode, uid: st.Uid, gid: st.Gid, rdev: st.Rdev, nlink: uint32(min(st.Nlink, 2)),
	}
	if n.stamp.dev == s.avoid.dev && n.stamp.ino == s.avoid.ino {
		return nil, fault.New(fault.Usage, "the image %s lies inside the tree that it is to hold", full)
	}
	if s.owner != nil {
		n.uid, n.gid = s.owner.UID, s.owner.GID
	}
	var err error
	switch n.kind() {
	case unix.S_IFREG:
		n.file = &file{fragment: noFragment}
		n.holes = st.Blocks*512 < st.Size
		n.xattrs, err = readXattrs(full)
	case unix.S_IFDIR:
		n.xattrs, err = readXattrs(full)
	case unix.S_IFLNK:
		n.target, err = os.Readlink(full)
		if len(n.target) > maxTargetLen {
			err = fault.New(fault.Invalid, "%s: the link's target is longer than %d bytes", full, maxTargetLen)
		}
	case unix.S_IFBLK, unix.S_IFCHR:
		if major, minor := unix.Major(n.rdev), unix.Minor(n.rdev); major > 0xfff || minor > 0xfffff {
			err = fault.New(fault.Invalid, "%s: device %d:%d is beyond what squashfs can hold", full, major, minor)
		}
	}
	return n, err
}

// excluded tells whether a pattern names the path: one with a slash the path
// from the root, one without the last part of the path.
func (s *scanner) excluded(full string) bool {
	for _, pattern := range s.exclude {
		name := filepath.Base(full)
		if strings.Contains(pattern, "/") {
			name = strings.TrimPrefix(full, s.root)
			pattern = strings.TrimPrefix(pattern, "/")
			name = strings.TrimPrefix(name, "/")
		}
		if ok, _ := path.Match(pattern, name); ok { // patterns were checked
			return true
		}
	}
	return false
}

// changed tells that the tree did not hold still.
func changed(name string, err error) error {
	err = fault.Wrap(fault.Failure, err, "%s changed while it was being packed", name)
	return fault.WithHint(err, "nothing may write to the tree while an image is made of it")
}

// retry calls f again while a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
