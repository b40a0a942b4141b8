package squashfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// place is a directory that is being unpacked into. It stays open while anyone
// holds it. Names given to its methods are single parts of paths, and only those
// that the listing of the image may have.
type place struct {
	fd   int
	held atomic.Int32
}

// open opens a directory below the destination, by a path that leads through no
// symbolic link. Where the kernel cannot see to that itself, os.Root does.
func (u *unpacker) open(path string) (*place, error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := unix.Openat2(u.topFD, path, &how)
	if err == unix.ENOSYS || err == unix.EPERM || err == unix.EAGAIN || err == unix.EINTR || err == unix.ENAMETOOLONG {
		fd, err = u.openByParts(path)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	p := &place{fd: fd}
	p.held.Store(1)
	return p, nil
}

func (u *unpacker) openByParts(path string) (int, error) {
	f, err := u.top.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

func (p *place) retain() *place {
	p.held.Add(1)
	return p
}

func (p *place) release() {
	if p != nil && p.held.Add(-1) == 0 {
		unix.Close(p.fd)
	}
}

func (p *place) mkdir(name string) error {
	if err := unix.Mkdirat(p.fd, name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return nil
}

// create makes a file, which must not be there.
func (p *place) create(name string) (int, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(p.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "create", Path: name, Err: err}
	}
	return fd, nil
}

// special makes what is neither a file nor a directory.
func (p *place) special(name string, i *inode) error {
	var err error
	switch i.kind {
	case typeSymlink:
		err = unix.Symlinkat(i.target, p.fd, name)
	case typeBlockDevice:
		err = unix.Mknodat(p.fd, name, unix.S_IFBLK|0o600, i.device())
	case typeCharDevice:
		err = unix.Mknodat(p.fd, name, unix.S_IFCHR|0o600, i.device())
	case typeFifo:
		err = unix.Mknodat(p.fd, name, unix.S_IFIFO|0o600, 0)
	case typeSocket:
		err = unix.Mknodat(p.fd, name, unix.S_IFSOCK|0o600, 0)
	}
	if err != nil {
		return &os.PathError{Op: "make", Path: name, Err: err}
	}
	return nil
}

// device returns the number of a device node as system calls take it.
func (i *inode) device() int {
	return int(unix.Mkdev(i.rdev>>8&0xfff, i.rdev&0xff|i.rdev>>12&^0xff))
}

// attributes gives what was made its owner, extended attributes, mode and times,
// in this order, since each may undo what follows it here. The file is open as
// fd, or -1 if it cannot be.
func (u *unpacker) attributes(p *place, name string, fd int, i *inode) error {
	if err := u.chown(p, name, i); err != nil {
		return err
	}
	if err := u.setXattrs(p, name, i); err != nil {
		return err
	}
	mode := uint32(i.perm)
	if !u.o.Preserve {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	var err error
	switch {
	case i.kind == typeSymlink:
	case fd >= 0:
		err = unix.Fchmod(fd, mode)
	default: // a device, fifo or socket that we made: nobody else may write here
		err = unix.Fchmodat(p.fd, name, mode, 0)
	}
	if err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	t := unix.Timespec{Sec: int64(i.mtime)}
	if err := unix.UtimesNanoAt(p.fd, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set times of", Path: name, Err: err}
	}
	return nil
}

func (u *unpacker) chown(p *place, name string, i *inode) error {
	if !u.o.Preserve {
		return nil
	}
	owner, err := u.m.owner(i)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(p.fd, name, int(owner.UID), int(owner.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
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
		path := fmt.Sprintf("/proc/self/fd/%d/%s", p.fd, name)
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
