package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// foreign is a directory in which programs of strangers write. It is opened before
// the first of them runs, and all that we do in it goes through that handle: they
// may put links, pipes and other directories wherever they can write.
type foreign struct{ *os.Root }

// maxForeign bounds the size of a file that is read whole: Spack's database of a
// thousand packages has a few megabytes.
const maxForeign = 256 << 20

func openForeign(dir string) (foreign, error) {
	root, err := os.OpenRoot(dir)
	return foreign{root}, err
}

// open opens a regular file for reading. It never waits.
func (d foreign) open(name string) (*os.File, error) {
	seen, err := d.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(seen, opened) {
		err = fmt.Errorf("%s changes while it is read", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// read returns the content of a regular file.
func (d foreign) read(name string) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxForeign+1))
	if err == nil && len(data) > maxForeign {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxForeign>>20)
	}
	return data, err
}

// write makes a new file in the place of whatever has its name, and the directories
// that it lies in.
func (d foreign) write(name string, data []byte, mode fs.FileMode) error {
	if err := d.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// isAt returns an error unless the directory is what a path stands for.
func (d foreign) isAt(path string) error {
	opened, err := d.Stat(".")
	if err != nil {
		return err
	}
	now, err := os.Lstat(path)
	if err == nil && !os.SameFile(opened, now) {
		err = fmt.Errorf("%s is not the directory that it was", path)
	}
	return err
}
