package stack

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// cursor is a directory below another, held open together with those on the way
// to it: files of a tree are written in order of their directories, and so cost
// a few system calls each however deep they are. Nothing outside is reached, also
// through links.
type cursor struct {
	open  []*os.Root // the top, which is the caller's, then one for each name
	names []string

	buffer []byte // for copies
}

// copyBuffer is more than most package recipes have, in bytes.
const copyBuffer = 64 << 10

// copy writes what in has. The kernel's ways to copy files cost more than they
// save with files as small as these.
func (c *cursor) copy(out io.Writer, in io.Reader) error {
	if c.buffer == nil {
		c.buffer = make([]byte, copyBuffer)
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, c.buffer)
	return err
}

// enter moves to a directory, slash-separated and relative to the top, and makes
// what is missing. The result is valid until the next call.
func (c *cursor) enter(dir string) (*os.Root, error) {
	var parts []string
	if dir = path.Clean(dir); dir != "." {
		parts = strings.Split(dir, "/")
	}
	same := 0
	for same < min(len(parts), len(c.names)) && parts[same] == c.names[same] {
		same++
	}
	c.leave(same)
	for _, name := range parts[same:] {
		next, err := enterOne(c.open[len(c.open)-1], name)
		if err != nil {
			return nil, err
		}
		c.open, c.names = append(c.open, next), append(c.names, name)
	}
	return c.open[len(c.open)-1], nil
}

// enterOne opens a directory, most often one that is not there yet.
func enterOne(dir *os.Root, name string) (*os.Root, error) {
	if err := dir.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return dir.OpenRoot(name)
}

// has tells whether something has that name.
func (c *cursor) has(name string) (bool, error) {
	dir, err := c.enter(path.Dir(name))
	if err != nil {
		return false, err
	}
	_, err = dir.Lstat(path.Base(name))
	return err == nil, nil
}

// leave closes all directories but the first n below the top.
func (c *cursor) leave(n int) {
	for _, dir := range c.open[n+1:] {
		dir.Close()
	}
	c.open, c.names = c.open[:n+1], c.names[:n]
}

// create writes a file anew, with exactly the given permissions. What has its
// name goes: nothing is written through a link.
func (c *cursor) create(name string, mode fs.FileMode, write func(io.Writer) error) error {
	dir, err := c.enter(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	const flags = os.O_CREATE | os.O_EXCL | os.O_WRONLY
	out, err := dir.OpenFile(base, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := dir.RemoveAll(base); err != nil {
			return err
		}
		out, err = dir.OpenFile(base, flags, 0o600)
	}
	if err != nil {
		return err
	}
	if err = write(out); err == nil {
		err = out.Chmod(mode) // whatever the umask
	}
	return errors.Join(err, out.Close())
}
