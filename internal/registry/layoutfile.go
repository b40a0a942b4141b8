package registry

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"uenv-ci.dev/internal/fault"
)

// replace writes a file of the layout under a temporary name, makes it durable
// and renames it. Nothing stays behind on an error.
func (l *layout) replace(root *os.Root, name string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(name)
	if err := root.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	temp := filepath.Join(dir, temporary+strconv.FormatUint(rand.Uint64(), 36))
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			root.Remove(temp)
		}
	}()
	err = errors.Join(write(f), f.Sync())
	if err := errors.Join(err, f.Close()); err != nil {
		return withSpaceHint(err)
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	return syncDir(root, dir)
}

// syncDir makes a rename in dir durable.
func syncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

func withSpaceHint(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.WithHint(err, "free some space and run it again")
	}
	return err
}
