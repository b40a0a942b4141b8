package recipe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/dirfd"
	"uenv-ci.dev/internal/fault"
)

// maxSourceEntries bounds a walk: links can make a small directory look endless.
const maxSourceEntries = 200_000

// Source reads a directory tree such as a recipe with its links followed, since
// recipes share files by links. A link that leaves the git repository the tree
// is in (or, without one, the tree) is refused: recipes come from strangers.
type Source struct {
	root   *os.Root
	prefix string // of the tree within root
}

// SourceEntry is a file or directory of a Source. Owner, times and permissions
// other than being executable are of no account: they depend on the checkout.
type SourceEntry struct {
	Name string // slash-separated, below what is walked; "." for itself
	Dir  bool
	open func() (*dirfd.File, error)
}

// Open opens a file for reading, while the entry is visited.
func (e SourceEntry) Open() (*SourceFile, error) {
	f, err := e.open()
	if err != nil {
		return nil, err
	}
	return &SourceFile{f}, nil
}

// SourceFile is an open file of a Source.
type SourceFile struct{ file *dirfd.File }

// Executable tells whether its owner or group may execute it.
func (f *SourceFile) Executable() bool { return f.file.Perm()&0o110 != 0 }

// Size returns the bytes that are left to read.
func (f *SourceFile) Size() int64 { return f.file.Left() }

// Read reads on.
func (f *SourceFile) Read(p []byte) (int, error) { return f.file.Read(p) }

// Close closes it.
func (f *SourceFile) Close() error { return f.file.Close() }

// OpenSource opens the tree at dir. Links in dir itself are trusted.
func OpenSource(dir string) (*Source, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	base := dir
	for at := dir; at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			base = at
			break
		}
	}
	prefix, err := filepath.Rel(base, dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	return &Source{root: root, prefix: filepath.ToSlash(prefix)}, nil
}

// Close closes the source.
func (s *Source) Close() error { return s.root.Close() }

// Walk visits the file or directory name and all below it, directories before
// what they hold and everything in order of name, except entries whose base
// name is in skip, and what is in a directory for which visit returns fs.SkipDir.
func (s *Source) Walk(name string, skip []string, visit func(SourceEntry) error) error {
	w := &sourceWalk{source: s, top: name, skip: skip, visit: visit, left: maxSourceEntries}
	return w.walk(".", nil)
}

func (s *Source) path(name string) string { return filepath.FromSlash(path.Join(s.prefix, name)) }

// open opens for reading, links followed, without waiting, should it have become a
// pipe. The runtime makes fewer system calls for such files, too.
func (s *Source) open(name string) (*os.File, error) {
	return s.root.OpenFile(s.path(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// stat follows links. It accepts files and directories only.
func (s *Source) stat(name string) (fs.FileInfo, error) {
	info, err := s.root.Stat(s.path(name))
	switch {
	case err != nil:
		return nil, fault.WithHint(err, "a link must be relative and stay inside the repository")
	case !info.IsDir() && !info.Mode().IsRegular():
		return nil, fault.New(fault.Invalid, "%s is neither a file nor a directory", name)
	}
	return info, nil
}

type sourceWalk struct {
	source *Source
	top    string
	skip   []string
	visit  func(SourceEntry) error
	left   int // entries that may still be visited
}

// walk visits what is at a path, following links from the root of the source.
// parents are all the directories above it, which a link may lead back to.
func (w *sourceWalk) walk(relative string, parents []*dirfd.Dir) error {
	name := path.Join(w.top, relative)
	info, err := w.source.stat(name)
	if err != nil {
		return err
	}
	open := func() (*os.File, error) { return w.source.open(name) }
	if !info.IsDir() {
		return w.file(relative, func() (*dirfd.File, error) { return opened(open, dirfd.FileOf) })
	}
	dir, err := opened(open, dirfd.DirOf)
	if err != nil {
		return err
	}
	for _, parent := range parents {
		if same, err := dir.Same(parent); err != nil || same {
			return errors.Join(err, dir.Close(), fault.New(fault.Invalid, "%s is a link to a directory it is in", name))
		}
	}
	return w.dir(relative, dir, parents)
}

func opened[T any](open func() (*os.File, error), convert func(*os.File) (T, error)) (T, error) {
	f, err := open()
	if err != nil {
		var none T
		return none, err
	}
	defer f.Close()
	return convert(f)
}

func (w *sourceWalk) count() error {
	if w.left--; w.left < 0 {
		return fault.New(fault.Invalid, "more than %d files", maxSourceEntries)
	}
	return nil
}

func (w *sourceWalk) file(relative string, open func() (*dirfd.File, error)) error {
	if err := w.count(); err != nil {
		return err
	}
	return w.visit(SourceEntry{Name: relative, open: open})
}

// dir visits a directory and what is in it, and closes it.
func (w *sourceWalk) dir(relative string, dir *dirfd.Dir, parents []*dirfd.Dir) error {
	defer dir.Close()
	if err := w.count(); err != nil {
		return err
	}
	switch err := w.visit(SourceEntry{Name: relative, Dir: true}); {
	case errors.Is(err, fs.SkipDir):
		return nil
	case err != nil:
		return err
	}
	entries, err := dir.Entries()
	if err != nil {
		return fmt.Errorf("read %s: %w", path.Join(w.top, relative), err)
	}
	slices.SortFunc(entries, func(a, b dirfd.Entry) int { return strings.Compare(a.Name, b.Name) })
	parents = append(parents, dir)
	for _, e := range entries {
		if slices.Contains(w.skip, e.Name) {
			continue
		}
		name := e.Name
		if relative != "." {
			name = relative + "/" + name
		}
		if err := w.below(dir, e, name, parents); err != nil {
			return err
		}
	}
	return nil
}

// below visits an entry of a directory that is open: to start at the root costs a
// few system calls for every directory on the way.
func (w *sourceWalk) below(dir *dirfd.Dir, e dirfd.Entry, relative string, parents []*dirfd.Dir) error {
	switch e.Kind {
	case dirfd.Regular:
		return w.file(relative, func() (*dirfd.File, error) { return dir.Open(e.Name) })
	case dirfd.Directory:
		below, err := dir.Dir(e.Name)
		if err != nil {
			return err
		}
		return w.dir(relative, below, parents)
	}
	return w.walk(relative, parents)
}
