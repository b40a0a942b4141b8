package stack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"uenv-ci.dev/internal/recipe"
)

// smallFile bounds the files that are read once for all copies of them, in bytes:
// most package recipes and patches.
const smallFile = 32 << 10

// copying is a Copy under way.
type copying struct {
	Copy
	source *recipe.Source
	root   string // of what is copied, in the source
	dst    *cursor
	at     *cursor // of its own, which starts where To is; nil: it has not begun
	name   string  // of To there
	left   string  // a directory that is left out, of those that are walked
}

// walk copies in one pass over a source: a directory, and for other copies also
// what is below it. The package repository of a recipe is wanted twice.
type walk struct {
	copies []*copying // the first has all the others below it
	wanted []*copying // those that want the present entry
	buffer []byte     // of smallFile bytes at most
}

// copyAll performs copies: of files, or of directories with all below them, so that
// all may read them, with permissions that do not depend on how their source was
// checked out, since images contain them.
func copyAll(at *cursor, copies []Copy) error {
	opened := sources{}
	defer opened.close()
	var walks []*walk
	for _, c := range copies {
		next, err := c.prepare(at, opened)
		if err != nil {
			return fmt.Errorf("copy %s: %w", c.From, err)
		}
		defer next.close()
		walks = addTo(walks, next)
	}
	buffer := make([]byte, smallFile/8) // one for all, since collecting garbage costs
	for _, w := range walks {
		w.buffer = buffer
		if err := w.run(); err != nil {
			return fmt.Errorf("copy %s: %w", w.copies[0].From, err)
		}
		buffer = w.buffer
	}
	return nil
}

// addTo adds a copy to the walk of one that it is below, or that is below it,
// unless it has to follow one of a later walk: what is copied first to a place is
// what stays there.
func addTo(walks []*walk, next *copying) []*walk {
	for i := len(walks) - 1; i >= 0; i-- {
		w := walks[i]
		switch outer := w.copies[0]; {
		case outer.covers(next):
			w.copies = append(w.copies, next)
			return walks
		case next.covers(outer):
			w.copies = slices.Insert(w.copies, 0, next)
			return walks
		case slices.ContainsFunc(w.copies, func(c *copying) bool { return c.To == next.To }):
			return append(walks, &walk{copies: []*copying{next}})
		}
	}
	return append(walks, &walk{copies: []*copying{next}})
}

// covers tells whether a walk over what c copies comes by all that d copies.
func (c *copying) covers(d *copying) bool { return c.source == d.source && isBelow(d.root, c.root) }

func (c Copy) prepare(at *cursor, opened sources) (*copying, error) {
	src, name, err := c.source(opened)
	if err != nil {
		return nil, err
	}
	return &copying{Copy: c, source: src, root: name, dst: at, name: path.Base(c.To)}, nil
}

func (c *copying) begin() (err error) {
	if c.at == nil {
		c.at, err = c.dst.from(path.Dir(c.To))
	}
	return err
}

func (c *copying) close() {
	if c.at != nil {
		c.at.close()
	}
}

// isBelow tells whether a clean relative path is dir or in it.
func isBelow(name, dir string) bool {
	return dir == "." || name == dir || strings.HasPrefix(name, dir+"/")
}

// relative returns what a path that is dir or in it is called from there.
func relative(name, dir string) string {
	switch {
	case dir == ".":
		return name
	case name == dir:
		return "."
	}
	return name[len(dir)+1:]
}

func (w *walk) run() error {
	top := w.copies[0].root
	err := w.copies[0].source.Walk(top, nil, func(e recipe.SourceEntry) error {
		name := join(top, e.Name)
		w.wanted = w.wanted[:0]
		for _, c := range w.copies {
			wants, err := c.wants(name, e.Dir)
			if err != nil {
				return err
			}
			if wants {
				w.wanted = append(w.wanted, c)
			}
		}
		switch {
		case !e.Dir:
			return w.file(name, e)
		case len(w.wanted) == 0 && !w.ahead(name):
			return fs.SkipDir
		}
		return nil
	})
	for _, c := range w.copies {
		if err == nil && c.at == nil {
			err = &fs.PathError{Op: "copy", Path: c.From, Err: fs.ErrNotExist}
		}
	}
	return err
}

// ahead tells whether a copy begins below a directory.
func (w *walk) ahead(name string) bool {
	return slices.ContainsFunc(w.copies, func(c *copying) bool { return c.at == nil && isBelow(c.root, name) })
}

// wants tells whether a copy has an entry, and makes it if it is a directory.
func (c *copying) wants(name string, isDir bool) (bool, error) {
	if !isBelow(name, c.root) || c.left != "" && isBelow(name, c.left) {
		return false, nil
	}
	if err := c.begin(); err != nil {
		return false, err
	}
	relative := relative(name, c.root)
	isPackage := c.Packages && relative != "." && path.Dir(relative) == "."
	out := relative != "." && slices.Contains(c.Exclude, path.Base(relative))
	if !isDir {
		return !out && !isPackage, nil // a file beside the packages is none
	}
	if !out {
		dir, err := c.at.enter(join(c.name, relative))
		if err != nil {
			return false, err
		}
		if dir.made || !isPackage { // else an earlier repository has it
			return true, dir.chmod()
		}
	}
	c.left = name
	return false, nil
}

// file copies a file to all who want it. The kernel's ways to copy files cost more
// than they save with files as small as these.
func (w *walk) file(name string, e recipe.SourceEntry) error {
	if len(w.wanted) == 0 {
		return nil
	}
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	small, err := w.small(in)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if in.Executable() {
		mode = 0o755
	}
	for _, c := range w.wanted {
		err := c.at.create(join(c.name, relative(name, c.root)), mode, func(out io.Writer) error {
			if small != nil {
				_, err := out.Write(small)
				return err
			}
			return w.stream(out, e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// small reads a small file; nil is a large one. It is valid until the next call.
func (w *walk) small(in *recipe.SourceFile) ([]byte, error) {
	if in.Size() > smallFile {
		return nil, nil
	}
	if in.Size() > int64(len(w.buffer)) {
		w.buffer = make([]byte, smallFile)
	}
	content := w.buffer[:in.Size()]
	_, err := io.ReadFull(in, content)
	return content, err
}

func (w *walk) stream(out io.Writer, e recipe.SourceEntry) error {
	in, err := e.Open()
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, in, w.buffer)
	return errors.Join(err, in.Close())
}
