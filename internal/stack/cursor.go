package stack

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"uenv-ci.dev/internal/dirfd"
)

// cursor is a directory below another, held open together with those on the way
// to it: files of a tree are written in order of their directories, and so cost
// a few system calls each however deep they are. Nothing outside is reached, also
// through links.
type cursor struct {
	top   *os.Root
	open  []*dirfd.Dir // the top, then one for each name
	names []string
}

// newCursor starts at the top, which stays the caller's. Close it.
func newCursor(top *os.Root) (*cursor, error) {
	f, err := top.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	at, err := dirfd.DirOf(f)
	return &cursor{top: top, open: []*dirfd.Dir{at}}, err
}

// enter moves to a directory, slash-separated and relative to the top, and makes
// what is missing; made tells whether the last of it was. The result is valid
// until the next call.
func (c *cursor) enter(dir string) (at *dirfd.Dir, made bool, err error) {
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
		var next *dirfd.Dir
		if next, made, err = enterOne(c.open[len(c.open)-1], name); err != nil {
			return nil, false, err
		}
		c.open, c.names = append(c.open, next), append(c.names, name)
	}
	return c.open[len(c.open)-1], made, nil
}

// enterOne opens a directory, most often one that is not there yet.
func enterOne(dir *dirfd.Dir, name string) (next *dirfd.Dir, made bool, err error) {
	err = dir.Mkdir(name)
	if made = err == nil; !made && !errors.Is(err, fs.ErrExist) {
		return nil, false, err
	}
	next, err = dir.Dir(name)
	return next, made, err
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
	dir, _, err := c.enter(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	out, err := dir.Create(base)
	if errors.Is(err, fs.ErrExist) {
		if err := c.top.RemoveAll(path.Clean(name)); err != nil {
			return err
		}
		out, err = dir.Create(base)
	}
	if err != nil {
		return err
	}
	if err = write(out); err == nil {
		err = out.Chmod(mode)
	}
	return errors.Join(err, out.Close())
}

// close closes all directories.
func (c *cursor) close() {
	c.leave(0)
	c.open[0].Close()
}
