package stack

import (
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/recipe"
)

// source opens the tree that is copied from, and names From within it.
func (c Copy) source(opened sources) (*recipe.Source, string, error) {
	within, from := c.Within, c.From
	if within == "" {
		var err error
		if within, from, err = trusted(from); err != nil {
			return nil, "", err
		}
	}
	name, err := filepath.Rel(within, from)
	if err != nil {
		return nil, "", err
	}
	src, err := opened.open(within)
	return src, filepath.ToSlash(name), err
}

// trusted returns the tree that a file or directory which is trusted itself is in,
// and its name with links followed. Opening a tree follows links to it.
func trusted(from string) (within, name string, err error) {
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		return from, from, nil
	}
	name, err = filepath.EvalSymlinks(from)
	return filepath.Dir(name), name, err
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
