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
	if cerr := raw.Control(func(of uintptr) {
		fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
	}); cerr != nil {
		return -1, cerr
	}
	if err != nil {
		return -1, &fs.PathError{Op: "dup", Path: f.Name(), Err: err}
	}
	return fd, nil
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

func (d *Dir) openat(name string, flags int) (int, error) {
	if err := single("open", name); err != nil {
		return -1, err
	}
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Dir opens a directory in this one.
func (d *Dir) Dir(name string) (*Dir, error) {
	fd, err := d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &Dir{fd}, nil
}

// Open opens a regular file in this directory for reading.
func (d *Dir) Open(name string) (*File, error) {
	// Whatever it turns out to be, opening it neither waits nor takes a terminal.
	fd, err := d.openat(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	return newFile(fd, name)
}

// Create makes a file in this directory, for writing, with mode 0600. The error
// wraps fs.ErrExist if something has the name.
func (d *Dir) Create(name string) (*File, error) {
	fd, err := d.openat(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	return &File{fd: fd}, nil
}

// Mkdir makes a directory in this one, with the permissions that the umask leaves
// of 0755. The error wraps fs.ErrExist if something has the name.
func (d *Dir) Mkdir(name string) error {
	if err := single("mkdir", name); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Mkdirat(d.fd, name, 0o755) }); err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return nil
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
