package squashfs

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// maxDepth is how deep directories may be nested for a walk: no path that the
// system takes leads deeper.
const maxDepth = 4096

// walker goes through all directories of an image, each before those below it.
type walker struct {
	m       *Image
	from    *inode // where it begins; nil is the root
	entries int
	// directory is called for each directory with its slash-separated path, ""
	// for the root; the error of entry ends its listing.
	directory func(path string, dir *inode) error
	entry     func(path string, dir *inode, d dirent, i *inode) error
}

// pendingDir is a directory that is yet to be gone through.
type pendingDir struct {
	path string
	dir  *inode
}

func (w *walker) walk(ctx context.Context) error {
	if w.from == nil {
		root, err := w.m.root()
		if err != nil {
			return err
		}
		w.from = root
	}
	todo := []pendingDir{{"", w.from}}
	for len(todo) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if strings.Count(next.path, "/") >= maxDepth {
			return invalid("directory", fmt.Errorf("nested deeper than %d", maxDepth))
		}
		below, err := w.list(next)
		if err != nil {
			return fmt.Errorf("%q: %w", "/"+next.path, err)
		}
		todo = append(todo, below...)
	}
	return nil
}

// list goes through one directory and returns those in it, the last one first.
func (w *walker) list(p pendingDir) ([]pendingDir, error) {
	if err := w.directory(p.path, p.dir); err != nil {
		return nil, err
	}
	var below []pendingDir
	err := w.m.list(p.dir, func(d dirent) error {
		if w.entries++; w.entries > w.m.limits.Entries {
			return invalid("image", errors.New("more entries than the limit"))
		}
		i, err := w.m.child(p.dir, d)
		if err != nil {
			return err
		}
		if i.kind == typeDir {
			below = append(below, pendingDir{join(p.path, d.name), i})
		}
		return w.entry(p.path, p.dir, d, i)
	})
	for a, b := 0, len(below)-1; a < b; a, b = a+1, b-1 {
		below[a], below[b] = below[b], below[a]
	}
	return below, err
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
