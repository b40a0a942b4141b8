// Package dirfd works on files relative to open directories, one name at a time,
// with one system call for each step, and follows no links. os.Root does so for
// whole paths, at several calls a step: where trees of small files are copied,
// system calls are most of the cost.
package dirfd

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// File is an open file or directory. Close it.
type File struct {
	fd   int
	stat unix.Stat_t // as it was when opened; zero for one that Create made
	read int64       // bytes so far
}

// FromFile returns what f has open, independent of f.
func FromFile(f *os.File) (*File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if cerr := raw.Control(func(of uintptr) {
		fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
	}); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, &fs.PathError{Op: "dup", Path: f.Name(), Err: err}
	}
	return newFile(fd, f.Name())
}

func newFile(fd int, name string) (*File, error) {
	f := &File{fd: fd}
	if err := retry(func() error { return unix.Fstat(fd, &f.stat) }); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "fstat", Path: name, Err: err}
	}
	return f, nil
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

func (f *File) openat(name string, flags int, mode uint32) (int, error) {
	if err := single("open", name); err != nil {
		return -1, err
	}
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(f.fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Open opens a file or directory of this directory for reading. A link fails.
func (f *File) Open(name string) (*File, error) {
	// Whatever it is, opening it neither waits nor takes it as a terminal.
	fd, err := f.openat(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return newFile(fd, name)
}

// Create makes a file in this directory, for writing, with mode 0600. The error
// wraps fs.ErrExist if something has the name.
func (f *File) Create(name string) (*File, error) {
	fd, err := f.openat(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &File{fd: fd}, nil
}

// Mkdir makes a directory in this one, with the permissions that the umask leaves
// of 0755. The error wraps fs.ErrExist if something has the name.
func (f *File) Mkdir(name string) error {
	if err := single("mkdir", name); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Mkdirat(f.fd, name, 0o755) }); err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return nil
}

// IsDir tells whether it is a directory.
func (f *File) IsDir() bool { return f.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsRegular tells whether it is a regular file.
func (f *File) IsRegular() bool { return f.stat.Mode&unix.S_IFMT == unix.S_IFREG }

// Perm returns its permission bits.
func (f *File) Perm() fs.FileMode { return fs.FileMode(f.stat.Mode) & fs.ModePerm }

// Same tells whether both are the same file, however it was reached.
func (f *File) Same(g *File) bool { return f.stat.Dev == g.stat.Dev && f.stat.Ino == g.stat.Ino }

// Names returns the names in this directory, in no order.
func (f *File) Names() ([]string, error) {
	var names []string
	buffer := make([]byte, 8<<10)
	for {
		n := 0
		err := retry(func() (err error) { n, err = unix.ReadDirent(f.fd, buffer); return err })
		if err != nil {
			return nil, os.NewSyscallError("getdents", err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buffer[:n], -1, names)
	}
}

// Read reads on. A regular file ends where it ended when it was opened.
func (f *File) Read(p []byte) (int, error) {
	if f.IsRegular() {
		left := f.stat.Size - f.read
		if left <= 0 {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), left)]
	}
	n := 0
	err := retry(func() (err error) { n, err = unix.Read(f.fd, p); return err })
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0 && len(p) > 0 && f.IsRegular():
		return 0, io.ErrUnexpectedEOF // somebody cut it off
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	f.read += int64(n)
	return n, nil
}

// Write writes all of p.
func (f *File) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := 0
		err := retry(func() (err error) { n, err = unix.Write(f.fd, p[done:]); return err })
		if err != nil {
			return done, os.NewSyscallError("write", err)
		}
		done += n
	}
	return done, nil
}

// Chmod sets the permission bits, whatever the umask is.
func (f *File) Chmod(mode fs.FileMode) error {
	return os.NewSyscallError("fchmod", retry(func() error { return unix.Fchmod(f.fd, uint32(mode.Perm())) }))
}

// Close closes it. A second call does nothing.
func (f *File) Close() error {
	if f.fd < 0 {
		return nil
	}
	err := unix.Close(f.fd)
	f.fd = -1
	if errors.Is(err, unix.EINTR) {
		err = nil // Linux has closed it all the same
	}
	return os.NewSyscallError("close", err)
}
