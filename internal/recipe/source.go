package recipe

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

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
	Name       string // slash-separated, below what is walked; "." for itself
	Dir        bool
	Executable bool
	open       func() (*os.File, error)
}

// Open opens a file for reading, while the entry is visited.
func (e SourceEntry) Open() (io.ReadCloser, error) { return e.open() }

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
	return w.walk(nil, ".", nil)
}

func (s *Source) path(name string) string { return filepath.FromSlash(path.Join(s.prefix, name)) }

func newSourceEntry(name string, info fs.FileInfo, open func() (*os.File, error)) SourceEntry {
	return SourceEntry{Name: name, Dir: info.IsDir(), Executable: !info.IsDir() && info.Mode()&0o110 != 0, open: open}
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

// listed returns the names in a directory, in order.
func listed(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.SortFunc(names, strings.Compare)
	return names, err
}

type sourceWalk struct {
	source *Source
	top    string
	skip   []string
	visit  func(SourceEntry) error
	left   int // entries that may still be visited
}

// walk visits one entry. dir is the directory it is in, nil for the top, and
// parents are all those above it, to notice a link that leads back to one of them.
func (w *sourceWalk) walk(dir *os.Root, relative string, parents []fs.FileInfo) error {
	if w.left--; w.left < 0 {
		return fault.New(fault.Invalid, "more than %d files", maxSourceEntries)
	}
	name := path.Join(w.top, relative)
	dir, base, info, err := w.source.find(dir, name)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(parents, func(p fs.FileInfo) bool { return os.SameFile(p, info) }) {
		return fault.New(fault.Invalid, "%s is a link to a directory it is in", name)
	}
	entry := newSourceEntry(relative, info, func() (*os.File, error) { return dir.Open(base) })
	err = w.visit(entry)
	if errors.Is(err, fs.SkipDir) && info.IsDir() {
		return nil
	}
	if err != nil || !info.IsDir() {
		return err
	}
	below, err := dir.OpenRoot(base)
	if err != nil {
		return err
	}
	defer below.Close()
	names, err := listed(below, ".")
	if err != nil {
		return err
	}
	parents = append(parents[:len(parents):len(parents)], info)
	for _, base := range names {
		if slices.Contains(w.skip, base) {
			continue
		}
		if err := w.walk(below, path.Join(relative, base), parents); err != nil {
			return err
		}
	}
	return nil
}

// find returns what a name stands for, and the directory and name to open it by:
// those of the directory that is open already, unless it is a link, which may
// lead anywhere in the source. To start at the root costs a few system calls for
// every directory on the way.
func (s *Source) find(dir *os.Root, name string) (*os.Root, string, fs.FileInfo, error) {
	base := path.Base(name)
	if dir != nil {
		info, err := dir.Lstat(base)
		if err == nil && (info.IsDir() || info.Mode().IsRegular()) {
			return dir, base, info, nil
		}
	}
	info, err := s.stat(name)
	return s.root, s.path(name), info, err
}
