package squashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// place is a directory that is being unpacked into. It stays open while anyone
// holds it. Names given to its methods are single parts of paths.
type place struct {
	root *os.Root
	dir  *os.File
	held atomic.Int32
}

// open opens a directory below the destination.
func (u *unpacker) open(path string) (*place, error) {
	if path == "" {
		path = "."
	}
	root, err := u.top.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	p := &place{root: root, dir: dir}
	p.held.Store(1)
	return p, nil
}

func (p *place) retain() *place {
	p.held.Add(1)
	return p
}

func (p *place) release() {
	if p != nil && p.held.Add(-1) == 0 {
		p.dir.Close()
		p.root.Close()
	}
}

// chmod returns what sets the mode of a name.
func (p *place) chmod(name string) func(fs.FileMode) error {
	return func(mode fs.FileMode) error { return p.root.Chmod(name, mode) }
}

func (p *place) fd() int { return int(p.dir.Fd()) }

// special makes what is neither a file nor a directory.
func (p *place) special(name string, i *inode) error {
	kind := uint32(0)
	switch i.kind {
	case typeSymlink:
		return p.root.Symlink(i.target, name)
	case typeBlockDevice:
		kind = unix.S_IFBLK
	case typeCharDevice:
		kind = unix.S_IFCHR
	case typeFifo:
		kind = unix.S_IFIFO
	case typeSocket:
		kind = unix.S_IFSOCK
	}
	major, minor := i.rdev>>8&0xfff, i.rdev&0xff|i.rdev>>12&^0xff
	if err := unix.Mknodat(p.fd(), name, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
		return &os.PathError{Op: "mknod", Path: name, Err: err}
	}
	return nil
}

// attributes gives what was made its owner, extended attributes, mode and times,
// in this order, since each may undo what follows it here.
func (u *unpacker) attributes(p *place, name string, i *inode, chmod func(fs.FileMode) error) error {
	if u.o.Preserve {
		owner, err := u.m.owner(i)
		if err != nil {
			return err
		}
		if err := p.root.Lchown(name, int(owner.UID), int(owner.GID)); err != nil {
			return err
		}
	}
	if err := u.setXattrs(p, name, i); err != nil {
		return err
	}
	if i.kind != typeSymlink {
		mode := i.mode()
		if !u.o.Preserve {
			mode &^= fs.ModeSetuid | fs.ModeSetgid
		}
		if err := chmod(mode); err != nil {
			return err
		}
	}
	t := unix.Timespec{Sec: int64(i.mtime)}
	if err := unix.UtimesNanoAt(p.fd(), name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set times of", Path: name, Err: err}
	}
	return nil
}

func (u *unpacker) setXattrs(p *place, name string, i *inode) error {
	if i.xattr == noXattrs || i.kind != typeFile && i.kind != typeDir && !u.o.Preserve {
		return nil
	}
	all, err := u.m.xattrsOf(i)
	if err != nil {
		return err
	}
	for _, x := range all {
		if !u.o.Preserve && !strings.HasPrefix(x.name, "user.") {
			continue
		}
		// There is no setxattrat before Linux 6.13; this path goes through our
		// descriptor of the directory and so cannot be led elsewhere.
		path := fmt.Sprintf("/proc/self/fd/%d/%s", p.fd(), name)
		err := unix.Lsetxattr(path, x.name, x.value, 0)
		if errors.Is(err, unix.ENOTSUP) {
			u.noXattrs.Store(true)
			continue
		}
		if err != nil {
			return &os.PathError{Op: "set " + x.name + " of", Path: name, Err: err}
		}
	}
	return nil
}
