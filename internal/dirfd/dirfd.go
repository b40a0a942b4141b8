// Package dirfd works on files relative to open directories, one name at a time,
// with one system call for each step, and follows no links. os.Root does so for
// whole paths, at several calls a step: where trees of small files are copied,
// system calls are most of the cost.
package dirfd

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// DirMode are the permissions of new directories, if the umask leaves them.
const DirMode fs.FileMode = 0o755

// Dir is an open directory. Close it.
type Dir struct{ fd int }

// DirOf returns the directory that f has open, independent of f.
func DirOf(f *os.File) (*Dir, error) {
	fd, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	return &Dir{fd}, nil
}

func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if cerr := raw.Control(func(of uintptr) { fd, err = again(of) }); cerr != nil {
		return -1, cerr
	}
	if err != nil {
		return -1, &fs.PathError{Op: "dup", Path: f.Name(), Err: err}
	}
	return fd, nil
}

func again(fd uintptr) (int, error) { return unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }

// Again returns the same directory, to be closed on its own.
func (d *Dir) Again() (*Dir, error) {
	fd, err := again(uintptr(d.fd))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return &Dir{fd}, nil
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// single refuses names that would lead elsewhere.
func single(op, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

func (d *Dir) openat(name string, flags int, mode fs.FileMode) (int, error) {
	if err := single("open", name); err != nil {
		return -1, err
	}
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode.Perm()))
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Dir opens a directory in this one.
func (d *Dir) Dir(name string) (*Dir, error) {
	fd, err := d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{fd}, nil
}

// Open opens a regular file in this directory for reading.
func (d *Dir) Open(name string) (*File, error) {
	// Whatever it turns out to be, opening it neither waits nor takes a terminal.
	fd, err := d.openat(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return newFile(fd, name)
}

// Create makes a file in this directory, for writing, with the permissions that
// the umask leaves of mode. The error wraps fs.ErrExist if something has the name.
func (d *Dir) Create(name string, mode fs.FileMode) (*File, error) {
	fd, err := d.openat(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	return &File{fd: fd}, nil
}

// CreateIn is Create in a directory of this one, without opening that. Linux does
// so from version 5.6 on, unless a sandbox refuses: any error but that of a name
// that is taken may be one that Create does not have.
func (d *Dir) CreateIn(dir, name string, mode fs.FileMode) (*File, error) {
	if err := errors.Join(single("open", dir), single("open", name)); err != nil {
		return nil, err
	}
	path := dir + "/" + name
	how := &unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC, Mode: uint64(mode.Perm()),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd := -1
	err := retry(func() (err error) { fd, err = unix.Openat2(d.fd, path, how); return err })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &File{fd: fd}, nil
}

// Mkdir makes a directory in this one, with the permissions that the umask leaves
// of DirMode. The error wraps fs.ErrExist if something has the name.
func (d *Dir) Mkdir(name string) error {
	if err := single("mkdir", name); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Mkdirat(d.fd, name, uint32(DirMode)) }); err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return nil
}

// KeepsModes tells whether all that is made in this directory, beside it, and in
// directories made there, has the permissions asked for as far as they are in
// DirMode, so that setting them is not needed. The directory is one that Mkdir has
// just made. Where it cannot be told, the answer is no.
func (d *Dir) KeepsModes() bool {
	var stat unix.Stat_t
	var fsys unix.Statfs_t
	if retry(func() error { return unix.Fstat(d.fd, &stat) }) != nil || stat.Mode&^unix.S_IFMT != uint32(DirMode) {
		return false // the umask or an ACL took some, or it has the group of its parent
	}
	if retry(func() error { return unix.Fstatfs(d.fd, &fsys) }) != nil {
		return false
	}
	// Here permissions follow from the umask or else from the default ACL of the
	// directory, which those made in it inherit. Others have rules of their own.
	switch fsys.Type {
	case unix.TMPFS_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true
	}
	return false
}

// Chmod sets the permission bits, whatever the umask is.
func (d *Dir) Chmod(mode fs.FileMode) error { return chmod(d.fd, mode) }

func chmod(fd int, mode fs.FileMode) error {
	return os.NewSyscallError("fchmod", retry(func() error { return unix.Fchmod(fd, uint32(mode.Perm())) }))
}

// Same tells whether both are one directory, however they were reached.
func (d *Dir) Same(e *Dir) (bool, error) {
	var a, b unix.Stat_t
	err := errors.Join(
		retry(func() error { return unix.Fstat(d.fd, &a) }),
		retry(func() error { return unix.Fstat(e.fd, &b) }))
	return a.Dev == b.Dev && a.Ino == b.Ino, os.NewSyscallError("fstat", err)
}

// Close closes it. A second call does nothing.
func (d *Dir) Close() error { return closeOnce(&d.fd) }

func closeOnce(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	if err == unix.EINTR {
		return nil // Linux has closed it all the same
	}
	return os.NewSyscallError("close", err)
}
