package lab

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
// Without that, whoever writes to memory that was free for a while waits for the host,
// each time as long as it likes.
func (l *Lab) Keep(size int64) error {
	f, err := os.Create(filepath.Join(l.Dir, "kept"))
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for at := int64(0); at < size && err == nil; at += int64(len(block)) {
		_, err = f.Write(block)
	}
	for at := int64(0); at < size && err == nil; at += gap {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at+page, gap-page)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep memory: %w", err)
	}
	return nil
}
