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
	top  *os.Root
	base string  // where it starts, below the top
	open []level // where it starts, then one for each name
	at   string  // where it is, from where it starts
}

// level is a directory on the way.
type level struct {
	dir   *dirfd.Dir // nil: it is not opened yet
	above *dirfd.Dir
	name  string // in above
	// made tells that it was made now, keeps that what is made in it has the
	// permissions asked for.
	made, keeps bool
	asked       bool // a directory that was made in it, whether it keeps them
	used        bool // a file was made in it
}

// opened opens a directory, unless it is.
func (l *level) opened() (dir *dirfd.Dir, err error) {
	if l.dir == nil {
		l.dir, err = l.above.Dir(l.name)
	}
	return l.dir, err
}

// chmod gives a directory permissions that do not depend on the umask.
func (l *level) chmod() error {
	if l.made && l.keeps {
		return nil // it has them from the beginning
	}
	return l.dir.Chmod(dirfd.DirMode)
}

// newCursor starts at the top, which stays the caller's. Close it.
func newCursor(top *os.Root) (*cursor, error) {
	f, err := top.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	at, err := dirfd.DirOf(f)
	return &cursor{top: top, base: ".", open: []level{{dir: at}}, at: "."}, err
}

// from returns a cursor of its own that starts at a directory.
func (c *cursor) from(dir string) (*cursor, error) {
	at, err := c.enter(dir)
	if err != nil {
		return nil, err
	}
	own, err := at.opened()
	if err != nil {
		return nil, err
	}
	if own, err = own.Again(); err != nil {
		return nil, err
	}
	return &cursor{top: c.top, base: join(c.base, c.at), open: []level{{dir: own, made: at.made, keeps: at.keeps}}, at: "."}, nil
}

// enter moves to a directory, slash-separated and relative to the start, and makes
// what is missing. The result is valid until the next call.
func (c *cursor) enter(dir string) (*level, error) {
	dir = path.Clean(dir)
	for !isBelow(dir, c.at) {
		c.leave()
	}
	for dir != c.at {
		rest := relative(dir, c.at)
		name, _, _ := strings.Cut(rest, "/")
		next, err := c.open[len(c.open)-1].enter(name)
		if err != nil {
			return nil, err
		}
		c.open, c.at = append(c.open, next), dir[:len(dir)-len(rest)+len(name)]
	}
	return &c.open[len(c.open)-1], nil
}

// enter makes a directory in another, or opens the one that is there. What is made
// is opened only if its permissions have to be looked at: many directories get
// one file.
func (l *level) enter(name string) (level, error) {
	above, err := l.opened()
	if err != nil {
		return level{}, err
	}
	err = above.Mkdir(name)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return level{}, err
	}
	next := level{above: above, name: name, made: err == nil}
	if next.made && l.keeps {
		next.keeps = true
		return next, nil
	}
	if _, err = next.opened(); err == nil && next.made && !l.asked {
		next.keeps = next.dir.KeepsModes()
		l.keeps, l.asked = next.keeps, true
	}
	return next, err
}

// leave closes the directory and moves to the one it is in.
func (c *cursor) leave() {
	last := len(c.open) - 1
	if dir := c.open[last].dir; dir != nil {
		dir.Close()
	}
	c.open, c.at = c.open[:last], path.Dir(c.at)
}

// create makes a file in a directory, most often one that is not there yet.
func (l *level) create(name string, mode fs.FileMode) (*dirfd.File, error) {
	first := l.dir == nil && !l.used
	l.used = true
	if first {
		if out, err := l.above.CreateIn(l.name, name, mode); err == nil {
			return out, nil
		}
	}
	dir, err := l.opened()
	if err != nil {
		return nil, err
	}
	return dir.Create(name, mode)
}

// create writes a new file with exactly the given permissions. Anything of that name is
// removed first, so nothing is written through a link.
func (c *cursor) create(name string, mode fs.FileMode, write func(io.Writer) error) error {
	name = path.Clean(name)
	dir, err := c.enter(path.Dir(name))
	if err != nil {
		return err
	}
	first := mode
	if !dir.keeps || mode&^dirfd.DirMode != 0 {
		first = 0o600
	}
	out, err := dir.create(path.Base(name), first)
	if errors.Is(err, fs.ErrExist) {
		if err := c.top.RemoveAll(join(c.base, name)); err != nil {
			return err
		}
		out, err = dir.create(path.Base(name), first)
	}
	if err != nil {
		return err
	}
	if err = write(out); err == nil && first != mode {
		err = out.Chmod(mode)
	}
	return errors.Join(err, out.Close())
}

// close closes all directories.
func (c *cursor) close() {
	for c.at != "." {
		c.leave()
	}
	c.open[0].dir.Close()
}

// join appends a clean relative path to another.
func join(dir, name string) string {
	switch {
	case dir == ".":
		return name
	case name == ".":
		return dir
	}
	return dir + "/" + name
}
