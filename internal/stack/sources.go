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
