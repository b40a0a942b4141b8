package dirfd

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// File is an open regular file. Close it.
type File struct {
	fd   int
	perm fs.FileMode
	left int64 // bytes to read
}

// FileOf returns the regular file that f has open, to be read from where f is.
func FileOf(f *os.File) (*File, error) {
	fd, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	return newFile(fd, f.Name())
}

func newFile(fd int, name string) (*File, error) {
	var stat unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd, &stat) })
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EINVAL // as reading it would say
	}
	if err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &File{fd: fd, perm: fs.FileMode(stat.Mode) & fs.ModePerm, left: stat.Size}, nil
}

// Perm returns the permission bits of a file opened for reading.
func (f *File) Perm() fs.FileMode { return f.perm }

// Left returns how many bytes are left to read.
func (f *File) Left() int64 { return f.left }

// Read reads on, to where the file ended when it was opened.
func (f *File) Read(p []byte) (int, error) {
	if f.left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), f.left)]
	n := 0
	err := retry(func() (err error) { n, err = unix.Read(f.fd, p); return err })
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0 && len(p) > 0:
		return 0, io.ErrUnexpectedEOF // somebody cut it off
	}
	f.left -= int64(n)
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
func (f *File) Chmod(mode fs.FileMode) error { return chmod(f.fd, mode) }

// Close closes it. A second call does nothing.
func (f *File) Close() error { return closeOnce(&f.fd) }
