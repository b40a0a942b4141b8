// Package atomicfile writes files that are either complete under their final
// name or not there at all.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File is a temporary file beside the path it will get by Commit.
type File struct {
	*os.File
	path   string
	closed bool
}

// Create opens a temporary file in the directory of path. The caller writes to
// it and ends with Commit; a deferred Abort removes it on every other way out. What
// writers of the same path have left that were killed is removed. A device or a pipe,
// such as /dev/null, is refused: the file would take its place for everybody.
func Create(path string, perm fs.FileMode) (*File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil, fmt.Errorf("create %s: it is not a regular file", path)
	}
	sweep(path)
	f, err := createLocked(path)
	if err != nil {
		if at := (*fs.PathError)(nil); errors.As(err, &at) {
			err = at.Err // of a name that nobody knows
		}
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", path, err), f.Close(), os.Remove(f.Name()))
	}
	return &File{File: f, path: path}, nil
}

// Check tells what would keep a file from being written, for work that takes long
// before there is anything to write.
func Check(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("create %s: it is a directory", path)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		return err
	}
	f.Abort()
	return nil
}

// Commit makes the content durable and gives it its final name, replacing what
// was there. On an error nothing is left of the new content.
func (f *File) Commit() error {
	if f.closed {
		return fmt.Errorf("commit %s: %w", f.path, os.ErrClosed)
	}
	err := f.Sync()
	f.closed = true
	if err == nil {
		err = os.Rename(f.Name(), f.path) // while it is locked, or it could be swept
	}
	f.Close() // synced, it has nothing to say any more
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return SyncDir(filepath.Dir(f.path))
}

// Abort removes the temporary file. It does nothing after Commit or Abort.
func (f *File) Abort() {
	if f.closed {
		return
	}
	f.closed = true
	f.Close()
	os.Remove(f.Name())
}

// Write writes a file atomically: what the function writes is synced and renamed
// to path. On any error the old file stays as it was.
func Write(path string, perm fs.FileMode, write func(io.Writer) error) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := write(f); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Commit()
}

// WriteBytes is Write for content that is in memory.
func WriteBytes(path string, perm fs.FileMode, data []byte) error {
	return Write(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// SyncDir makes renames in a directory durable. File systems that cannot sync
// directories are tolerated.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
