package squashfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// preallocation is by how much the file grows ahead of what is written, so that
// file systems can place it in few pieces.
const preallocation = 64 << 20

// output is the image file while it is written, front to back.
type output struct {
	file      *os.File
	at        int64 // where the next bytes go
	allocated int64
	noAlloc   bool // the file system cannot preallocate, or is nearly full
}

func newOutput(f *os.File) *output { return &output{file: f} }

func (o *output) write(data []byte) error {
	if end := o.at + int64(len(data)); end > o.allocated && !o.noAlloc {
		o.allocate(end)
	}
	if _, err := o.file.WriteAt(data, o.at); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	o.at += int64(len(data))
	return nil
}

// allocate is a help to the file system, no more: if it fails, writing decides.
func (o *output) allocate(end int64) {
	size := end - o.allocated + preallocation
	err := retry(func() error { return unix.Fallocate(int(o.file.Fd()), 0, o.allocated, size) })
	if err != nil {
		o.noAlloc = true
		return
	}
	o.allocated += size
}

// finish writes the head of the image and gives the file its size.
func (o *output) finish(head []byte) (int64, error) {
	if _, err := o.file.WriteAt(head, 0); err != nil {
		return 0, fmt.Errorf("write superblock: %w", err)
	}
	size := (o.at + imageAlign - 1) &^ (imageAlign - 1)
	if err := o.file.Truncate(size); err != nil {
		return 0, fmt.Errorf("set the size of the image: %w", err)
	}
	return size, nil
}
