package stack

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
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
	base, name, err := splitSource(c.From)
	if err != nil {
		return err
	}
	src, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer src.Close()
	cp := &copier{src: src, dst: dst, exclude: c.Exclude, left: maxEntries}
	if !c.Packages {
		if err := dst.MkdirAll(path.Dir(c.To), 0o755); err != nil {
			return err
		}
		return cp.entry(name, c.To, nil)
	}
	if err := dst.MkdirAll(c.To, 0o755); err != nil {
		return err
	}
	return cp.packages(name, c.To)
}

// splitSource splits an absolute path into the directory that links may not
// leave and the path below it.
func splitSource(from string) (base, name string, err error) {
	if from, err = filepath.EvalSymlinks(from); err != nil {
		return "", "", err
	}
	info, err := os.Stat(from)
	if err != nil {
		return "", "", err
	}
	base = from
	if !info.IsDir() {
		base = filepath.Dir(from)
	}
	for dir := base; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			base = dir
			break
		}
	}
	name, err = filepath.Rel(base, from)
	return base, name, err
}

// maxEntries bounds a copy: links can make a small directory look endless.
const maxEntries = 200_000

// copier copies from one root to another, links followed inside the source.
type copier struct {
	src, dst *os.Root
	exclude  []string
	left     int // entries that may still be copied
}

// packages copies those sub-directories that the destination does not have.
func (c *copier) packages(from, to string) error {
	entries, err := c.read(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, target := path.Join(from, e.Name()), path.Join(to, e.Name())
		info, err := c.src.Stat(name)
		if err != nil {
			return err
		}
		if _, err := c.dst.Lstat(target); err == nil || !info.IsDir() {
			continue
		}
		if err := c.entry(name, target, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) read(dir string) ([]fs.DirEntry, error) {
	f, err := c.src.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		return strings.Compare(a.Name(), b.Name())
	})
	return entries, err
}

// entry copies a file, or a directory with all below it. parents are the
// directories it is in, to notice a link that leads back to one of them.
func (c *copier) entry(from, to string, parents []fs.FileInfo) error {
	if c.left--; c.left < 0 {
		return fault.New(fault.Invalid, "more than %d files", maxEntries)
	}
	info, err := c.src.Stat(from)
	switch {
	case err != nil:
		return fault.WithHint(err, "a link may not lead out of the repository, nor be absolute")
	case info.Mode().IsRegular():
		return c.regular(from, to, info.Mode())
	case !info.IsDir():
		return fault.New(fault.Invalid, "%s is neither a file nor a directory", from)
	}
	for _, parent := range parents {
		if os.SameFile(parent, info) {
			return fault.New(fault.Invalid, "%s is a link to a directory it is in", from)
		}
	}
	if err := c.dst.Mkdir(to, 0o755); err != nil {
		return err
	}
	entries, err := c.read(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(c.exclude, e.Name()) {
			continue
		}
		if err := c.entry(path.Join(from, e.Name()), path.Join(to, e.Name()), append(parents[:len(parents):len(parents)], info)); err != nil {
			return err
		}
	}
	return c.dst.Chmod(to, 0o755)
}

func (c *copier) regular(from, to string, mode fs.FileMode) error {
	in, err := c.src.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.dst.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Chmod(normalMode(mode))
	}
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}

// normalMode makes copies readable for all (a+rX) and independent of the umask
// that their source was checked out with, since images contain them.
func normalMode(mode fs.FileMode) fs.FileMode {
	if mode&0o110 != 0 {
		return 0o755
	}
	return 0o644
}
