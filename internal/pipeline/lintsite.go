package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/site"
)

// addSite checks a site file: what it says, and whether that can be.
func (l *linter) addSite(path string) {
	key := l.key(path)
	for _, known := range l.sites {
		if known == key {
			return
		}
	}
	l.sites = append(l.sites, key)
	s, err := site.LoadSite(path, l.Getenv)
	if err != nil {
		l.addError(path, err)
		return
	}
	l.add(s.Warnings...)
	l.add(s.Unset...)
	if address := s.Registry.Known(); address != "" {
		if err := registry.CheckAddress(address); err != nil {
			l.add(s.Registry.Problem(err.Error(), fault.HintOf(err)))
		}
	}
	for _, p := range []struct {
		key   string
		value site.Value
		dir   bool
	}{
		{"clusters", s.Clusters, true},
		{"clusters_v1", s.ClustersV1, true},
		{"matrix", s.Matrix, false},
		{"recipes", s.Recipes, true},
		{"build.spack", s.Build.Spack, true},
		{"build.mirrors", s.Build.Mirrors, false},
		{"build.change_cache", s.Build.ChangeCache, false},
		{"tests.suite", s.Tests.Suite, true},
		{"tests.config", s.Tests.Config, false},
	} {
		l.checkPath(p.key, p.value, p.dir)
	}
}

// checkPath tells if what a site file names is not there. Relative paths belong to
// the same checkout, so that is wrong; others may be those of another machine.
func (l *linter) checkPath(key string, v site.Value, dir bool) {
	path := v.Known()
	if path == "" {
		return
	}
	kind := map[bool]string{true: "directory", false: "file"}[dir]
	info, err := os.Stat(path)
	var p fault.Problem
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p = v.Problem(fmt.Sprintf("'%s': the %s '%s' does not exist", key, kind, path), "")
	case err != nil:
		p = v.Problem(fmt.Sprintf("'%s': %v", key, err), "")
	case info.IsDir() != dir:
		p = v.Problem(fmt.Sprintf("'%s': '%s' is not a %s", key, path, kind), "")
	default:
		return
	}
	if !v.Relative() {
		p.Severity, p.Rule, p.Hint = fault.Warning, "elsewhere", "it may be on the machine that uses this file"
	}
	l.add(p)
}
