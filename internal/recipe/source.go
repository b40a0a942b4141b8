package recipe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

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
	Name       string // slash-separated, below what is walked; "." for itself
	Dir        bool
	Executable bool
	file       *dirfd.File
}

// Content reads a file, once and while the entry is visited.
func (e SourceEntry) Content() io.Reader { return e.file }

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

// walk visits one entry. parents are all the directories above it: the last is the
// one it is in, and it may be a link that leads back to any of them.
func (w *sourceWalk) walk(relative string, parents []*dirfd.File) error {
	if w.left--; w.left < 0 {
		return fault.New(fault.Invalid, "more than %d files", maxSourceEntries)
	}
	name := path.Join(w.top, relative)
	f, err := w.source.open(parents, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if slices.ContainsFunc(parents, f.Same) {
		return fault.New(fault.Invalid, "%s is a link to a directory it is in", name)
	}
	err = w.visit(SourceEntry{Name: relative, Dir: f.IsDir(), Executable: !f.IsDir() && f.Perm()&0o110 != 0, file: f})
	if errors.Is(err, fs.SkipDir) && f.IsDir() {
		return nil
	}
	if err != nil || !f.IsDir() {
		return err
	}
	names, err := f.Names()
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	slices.Sort(names)
	parents = append(parents[:len(parents):len(parents)], f)
	for _, base := range names {
		if slices.Contains(w.skip, base) {
			continue
		}
		if err := w.walk(path.Join(relative, base), parents); err != nil {
			return err
		}
	}
	return nil
}

// open opens a file or directory in the directory that is open already, unless it
// is a link, which may lead anywhere in the source. To start at the root costs a
// few system calls for every directory on the way.
func (s *Source) open(parents []*dirfd.File, name string) (*dirfd.File, error) {
	if len(parents) > 0 {
		f, err := parents[len(parents)-1].Open(path.Base(name))
		if err == nil && (f.IsDir() || f.IsRegular()) {
			return f, nil
		}
		if err == nil {
			f.Close()
		}
	}
	if _, err := s.stat(name); err != nil {
		return nil, err
	}
	f, err := s.root.Open(s.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return dirfd.FromFile(f)
}
