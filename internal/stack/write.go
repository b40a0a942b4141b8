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
	for _, dir := range t.Dirs {
		if err := dst.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, f := range t.Files {
		if err := writeFile(dst, f.Path, f.Mode, f.Data); err != nil {
			return err
		}
	}
	for _, c := range t.Copies {
		if err := c.run(dst); err != nil {
			return fmt.Errorf("copy %s: %w", c.From, err)
		}
	}
	return nil
}

func writeFile(dst *os.Root, name string, mode fs.FileMode, data []byte) error {
	if err := dst.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := dst.RemoveAll(name); err != nil { // do not write through a link
		return err
	}
	if err := dst.WriteFile(name, data, mode); err != nil {
		return err
	}
	return dst.Chmod(name, mode) // whatever the umask
}

// run performs one copy into dst.
func (c Copy) run(dst *os.Root) error {
	src, name, err := c.source()
	if err != nil {
		return err
	}
	defer src.Close()
	if !c.Packages {
		return c.copyEntry(dst, src, name, c.To)
	}
	entries, err := src.ReadDir(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := path.Join(c.To, e.Name)
		if _, err := dst.Lstat(to); err == nil || !e.Dir {
			continue
		}
		if err := c.copyEntry(dst, src, path.Join(name, e.Name), to); err != nil {
			return err
		}
	}
	return nil
}

// source opens the tree that is copied from, and names From within it.
func (c Copy) source() (*recipe.Source, string, error) {
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
	src, err := recipe.OpenSource(within)
	return src, filepath.ToSlash(name), err
}

// copyEntry copies a file, or a directory with all below it.
func (c Copy) copyEntry(dst *os.Root, src *recipe.Source, from, to string) error {
	if err := dst.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	return src.Walk(from, c.Exclude, func(e recipe.SourceEntry) error {
		target := path.Join(to, e.Name)
		if !e.Dir {
			return copyFile(dst, target, e)
		}
		if err := dst.Mkdir(target, 0o755); err != nil {
			return err
		}
		return dst.Chmod(target, 0o755)
	})
}

// copyFile copies a file so that all may read it, with permissions that do not
// depend on how its source was checked out, since images contain it.
func copyFile(dst *os.Root, to string, e recipe.SourceEntry) error {
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := dst.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if e.Executable {
		mode = 0o755
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Chmod(mode)
	}
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}
