package squashfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	top := s.node(nil, "", &st)
	err := s.directory(top, root)
	if waited := s.group.Wait(); waited != nil {
		err = waited
	}
	if err != nil {
		return nil, err
	}
	return plant(root, top)
}

// plant turns what was scanned into a tree: hard links are joined and inodes
// numbered.
func plant(root string, top *node) (*tree, error) {
	t := &tree{path: root, root: top}
	joinLinks(top, map[[2]uint64]*node{})
	t.number()
	for _, n := range t.nodes {
		if n.nlink > maxLinks && !n.isDir() {
			return nil, fault.New(fault.Invalid, "%s has %d hard links in the tree, more than %d", n.relative(), n.nlink, maxLinks)
		}
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
	if err := s.list(dir, name); err != nil {
		return err
	}
	return s.below(dir, name)
}

// list fills in the entries of dir.
func (s *scanner) list(dir *node, name string) error {
	fd, err := openDirectory(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if dir.xattrs, err = readXattrs(fd, name); err != nil {
		return err
	}
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", name, err)
	}
	dir.entries = make([]entry, 0, len(names))
	for _, child := range names {
		if s.excluded(name, child) {
			continue
		}
		n, err := s.entry(fd, dir, child)
		if errors.Is(err, fs.ErrNotExist) {
			return changed(filepath.Join(name, child), err)
		}
		if err != nil {
			return fault.Wrap(fault.KindOf(err), err, "%s", filepath.Join(name, child))
		}
		dir.entries = append(dir.entries, entry{child, n})
	}
	return nil
}

// openDirectory does without os.Open, which makes four more system calls.
func openDirectory(name string) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// readNames returns the names in an open directory, sorted.
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 8<<10)
	for {
		var n int
		err := retry(func() (err error) {
			n, err = unix.ReadDirent(fd, buf)
			return err
		})
		if err != nil {
			return nil, err
		}
		if n == 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// entry reads what is behind a name of the open directory fd.
func (s *scanner) entry(fd int, dir *node, name string) (*node, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return nil, err
	}
	n := s.node(dir, name, &st)
	if n.stamp.dev == s.avoid.dev && n.stamp.ino == s.avoid.ino {
		return nil, fault.New(fault.Usage, "the image is inside the directory that is to be packed")
	}
	switch n.kind() {
	case unix.S_IFLNK:
		n.target, err = readTarget(fd, name, st.Size)
	case unix.S_IFBLK, unix.S_IFCHR:
		if major, minor := unix.Major(n.rdev), unix.Minor(n.rdev); major > 0xfff || minor > 0xfffff {
			err = fault.New(fault.Invalid, "device %d:%d is beyond what squashfs can hold", major, minor)
		}
	case unix.S_IFREG: // others are opened when their content is read
		if st.Size == 0 {
			n.xattrs, err = xattrsOfEmpty(fd, name)
		}
	}
	return n, err
}

// readTarget returns the target of a symbolic link that should have so many bytes.
func readTarget(fd int, name string, size int64) (string, error) {
	b, err := growing(make([]byte, size+1), func(b []byte) (int, error) {
		n, err := unix.Readlinkat(fd, name, b)
		if err == nil && n == len(b) {
			err = unix.ERANGE // it may have been cut
		}
		return n, err
	})
	if err == nil && len(b) > maxTargetLen {
		err = fault.New(fault.Invalid, "the target of the link is longer than %d bytes", maxTargetLen)
	}
	return string(b), err
}

func xattrsOfEmpty(dir int, name string) ([]xattr, error) {
	fd, err := openFile(dir, name)
	if err == unix.EACCES { // its content can be packed without being read
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readXattrs(fd, name)
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

func (s *scanner) node(parent *node, name string, st *unix.Stat_t) *node {
	n := &node{
		parent: parent, name: name, stamp: stampOf(st),
		mode: st.Mode, uid: st.Uid, gid: st.Gid, rdev: st.Rdev, nlink: uint32(min(st.Nlink, 2)),
	}
	if s.owner != nil {
		n.uid, n.gid = s.owner.UID, s.owner.GID
	}
	if n.isRegular() {
		n.file = &file{fragment: noFragment}
		n.holes = st.Blocks*512 < st.Size
	}
	return n
}

// excluded tells whether a pattern names an entry: one with a slash its path from
// the root, one without just its name.
func (s *scanner) excluded(dir, name string) bool {
	for _, pattern := range s.exclude {
		name := name
		if strings.Contains(pattern, "/") {
			name = strings.TrimPrefix(filepath.Join(dir, name), s.root)
			name = strings.TrimPrefix(name, "/")
			pattern = strings.TrimPrefix(pattern, "/")
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
