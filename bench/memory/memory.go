// Package memory keeps measurements from being about where a virtual machine gets its memory.
package memory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Gaps of the memory that Keep provides, in bytes: hosts take free memory back only in
// larger pieces, and the kernel uses the smallest first.
const page, gap = 4 << 10, 64 << 10

// Keep has size bytes of free memory that the host of a virtual machine does not take
// back: a file is written, and all but a page of each small piece of it given back.
// That is used once here, since the kernel takes first what was free last.
// Without that, whoever writes to memory that was free for a while waits for the host,
// each time as long as it likes. dir is in memory; release gives all back.
func Keep(dir string, size int64) (release func() error, err error) {
	f, err := fill(filepath.Join(dir, "kept"), size)
	if err != nil {
		return nil, err
	}
	for at := int64(0); at < size && err == nil; at += gap {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at+page, gap-page)
	}
	release = func() error { return os.Remove(f.Name()) }
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("keep memory: %w", err), release())
	}
	used, err := fill(filepath.Join(dir, "used"), size)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	if err := errors.Join(used.Close(), os.Remove(used.Name())); err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// fill creates a file of the given size.
func fill(name string, size int64) (*os.File, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	block := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}
	return f, nil
}
