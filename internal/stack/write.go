package stack

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"uenv-ci.dev/internal/recipe"
)

// Write writes the tree below the directory root, which is made if missing:
// its directories, files and copies, but not its clones. Nothing is written
// outside root. Links in what is copied are followed as long as they stay
// inside the git repository (or, without one, the directory) they are in.
func (t *Tree) Write(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("create the build tree: %w", err)
	}
	dst, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open the build tree: %w", err)
	}
	defer dst.Close()
	if err := t.write(dst); err != nil {
		return fmt.Errorf("write the build tree: %w", err)
	}
	return nil
}

func (t *Tree) write(dst *os.Root) error {
	for _, c := range t.Copies { // what an earlier run left behind
		if err := dst.RemoveAll(c.To); err != nil {
			return err
		}
	}
	at, err := newCursor(dst)
	if err != nil {
		return err
	}
	defer at.close()
	for _, dir := range t.Dirs {
		if _, _, err := at.enter(dir); err != nil {
			return err
		}
	}
	for _, f := range t.Files {
		if err := f.write(at); err != nil {
			return err
		}
	}
	from := sources{}
	defer from.close()
	for _, c := range t.Copies {
		if err := c.run(at, from); err != nil {
			return fmt.Errorf("copy %s: %w", c.From, err)
		}
	}
	return nil
}

func (f File) write(at *cursor) error {
	return at.create(f.Path, f.Mode, func(out io.Writer) error {
		_, err := out.Write(f.Data)
		return err
	})
}

// run performs one copy: of a file, or of a directory with all below it, so that
// all may read it, with permissions that do not depend on how its source was
// checked out, since images contain it.
func (c Copy) run(at *cursor, from sources) error {
	src, name, err := c.source(from)
	if err != nil {
		return err
	}
	return src.Walk(name, c.Exclude, func(e recipe.SourceEntry) error {
		target := path.Join(c.To, e.Name)
		isPackage := c.Packages && e.Name != "." && path.Dir(e.Name) == "."
		switch {
		case !e.Dir && isPackage: // a file beside the packages
			return nil
		case !e.Dir:
			return copyFile(at, target, e)
		}
		dir, made, err := at.enter(target)
		switch {
		case err != nil:
			return err
		case isPackage && !made: // an earlier repository has it
			return fs.SkipDir
		}
		return dir.Chmod(0o755)
	})
}

func copyFile(at *cursor, target string, e recipe.SourceEntry) error {
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	mode := fs.FileMode(0o644)
	if in.Executable() {
		mode = 0o755
	}
	return at.create(target, mode, func(out io.Writer) error { return at.copy(out, in) })
}

// sources are the trees that are copied from, by their directories.
type sources map[string]*recipe.Source

func (s sources) open(dir string) (*recipe.Source, error) {
	if s[dir] == nil {
		src, err := recipe.OpenSource(dir)
		if err != nil {
			return nil, err
		}
		s[dir] = src
	}
	return s[dir], nil
}

func (s sources) close() {
	for _, src := range s {
		src.Close()
	}
}

// source opens the tree that is copied from, and names From within it.
func (c Copy) source(opened sources) (*recipe.Source, string, error) {
	within, from := c.Within, c.From
	if within == "" {
		resolved, err := filepath.EvalSymlinks(from)
		if err != nil {
			return nil, "", err
		}
		from, within = resolved, filepath.Dir(resolved)
		if info, err := os.Stat(resolved); err == nil && info.IsDir() {
			within = resolved
		}
	}
	name, err := filepath.Rel(within, from)
	if err != nil {
		return nil, "", err
	}
	src, err := opened.open(within)
	return src, filepath.ToSlash(name), err
}
