// Package bounded reads what others may have written, up to a limit.
package bounded

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

// ReadAll reads r to its end. More than limit bytes are an error of kind
// fault.Invalid.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fault.New(fault.Invalid, "it is larger than %s", size(limit))
	}
	return data, err
}

// ReadFile reads a regular file. Anything else, such as a pipe, which nobody may ever
// write to, and more than limit bytes are errors of kind fault.Invalid.
func ReadFile(path string, limit int64) ([]byte, error) {
	return readRegular(os.OpenFile, path, limit)
}

// ReadFileIn reads a file as ReadFile does. Links that lead out of root are errors.
func ReadFileIn(root *os.Root, name string, limit int64) ([]byte, error) {
	return readRegular(root.OpenFile, name, limit)
}

func readRegular(open func(string, int, os.FileMode) (*os.File, error), path string, limit int64) ([]byte, error) {
	f, err := open(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, "it is not a regular file")
	}
	return ReadAll(f, limit)
}

func size(bytes int64) string {
	if bytes > 0 && bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
