// Package site reads what a site says about itself: cluster configurations, the
// build matrix, mirrors and caches, and our own site file.
package site

import "uenv-ci.dev/internal/yamlpos"

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
}
