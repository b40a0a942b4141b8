// Package site reads what a site says about itself: cluster configurations, the
// build matrix, mirrors and caches, and our own site file.
package site

import (
	"os"
	"path/filepath"
	"slices"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
)

// Cluster is a cluster configuration directory. Documents that are absent are nil.
type Cluster struct {
	Dir  string // absolute
	Name string // last element of Dir

	// Packages is the mapping below `packages:` of packages.yaml.
	Packages *yamlpos.Node
	// Network is the whole of network.yaml: `mpi` and `packages`.
	Network *yamlpos.Node
	// Compilers, Concretizer and Repos are the whole documents.
	Compilers, Concretizer, Repos *yamlpos.Node

	// PackageRepos are the absolute directories named by repos.yaml; each has a
	// subdirectory packages.
	PackageRepos []string
	// OtherFiles are the names of all regular files of the directory (links
	// followed), sorted. Version 1 copies every one to the configuration.
	OtherFiles []string

	// Warnings are what is doubtful in the files.
	Warnings fault.Problems
}

// LoadCluster reads a cluster configuration. The error lists everything that is
// wrong in all files; it is of kind fault.NotFound if there is no such directory.
func LoadCluster(dir string) (*Cluster, error) {
	absolute, err := openDir("cluster configuration", dir)
	if err != nil {
		return nil, fault.WithHint(err, "%s", clusterHint(dir))
	}
	c := &Cluster{Dir: absolute, Name: filepath.Base(absolute)}
	r := &reader{}
	c.listFiles(r, dir)
	packages := r.checked(filepath.Join(dir, "packages.yaml"), packagesFormat).Get("packages")
	if packages != nil && packages.Kind == yamlpos.Mapping {
		c.Packages = packages
	}
	c.Network = r.checked(filepath.Join(dir, "network.yaml"), networkFormat)
	c.Compilers = r.document(filepath.Join(dir, "compilers.yaml"))
	c.Concretizer = r.document(filepath.Join(dir, "concretizer.yaml"))
	c.Repos = r.checked(filepath.Join(dir, "repos.yaml"), reposFormat)
	c.findRepos(r)
	if c.Warnings, err = r.finish(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cluster) listFiles(r *reader, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.Add(fault.Problem{File: dir, Message: err.Error()})
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			r.Add(fault.Problem{File: filepath.Join(dir, e.Name()), Message: "the link leads nowhere"})
			continue
		}
		if info.Mode().IsRegular() {
			c.OtherFiles = append(c.OtherFiles, e.Name())
		}
	}
	if slices.Contains(c.OtherFiles, "mirrors.yaml") {
		r.Fail(&yamlpos.Node{File: filepath.Join(dir, "mirrors.yaml")}, "give mirrors and caches on the command line",
			"a mirrors.yaml in the cluster configuration is not supported")
	}
}

// findRepos resolves the package repositories of repos.yaml.
func (c *Cluster) findRepos(r *reader) {
	for _, item := range yamlpos.Items(c.Repos.Get("repos")) {
		name, ok := item.Str()
		if !ok {
			continue
		}
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(c.Dir, name)
		}
		if !isDir(filepath.Join(path, "packages")) {
			r.Fail(item, "it needs a directory 'packages'", "'%s' is not a package repository", name)
			continue
		}
		c.PackageRepos = append(c.PackageRepos, path)
	}
}

// clusterHint names the cluster that was probably meant, or what there is.
func clusterHint(dir string) string {
	names := Clusters(filepath.Dir(dir))
	if len(names) == 0 {
		return ""
	}
	if hint := schema.Suggest(filepath.Base(dir), names); hint != "" {
		return hint
	}
	return "there is " + join(names)
}

// Clusters returns the names of the cluster configurations in a directory: its
// directories that have a packages.yaml.
func Clusters(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "*", "packages.yaml"))
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = filepath.Base(filepath.Dir(f))
	}
	return names
}
