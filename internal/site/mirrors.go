package site

import (
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

// Mirrors are the resolved mirrors and caches of a build: keys are read, paths
// expanded, URLs final. A nil *Mirrors means none.
type Mirrors struct {
	// BuildCache is the binary cache; nil = none.
	BuildCache *BuildCache
	// Sources are the read-only source mirrors in file order.
	Sources []Mirror
	// SourceCache is the absolute path for config:source_cache, "" = none.
	SourceCache string
	// ConcretizationCache is the absolute path for
	// concretizer:concretization_cache, "" = none. Only Spack 1.1 and newer knows it.
	ConcretizationCache string
	// Bootstrap is where Spack bootstraps from; nil = Spack's defaults.
	Bootstrap *Bootstrap
	// Keys are the files of the key store.
	Keys []KeyFile
	// Warnings are deprecations and the like.
	Warnings fault.Problems
}

// Mirror is one entry of Spack's mirrors.yaml.
type Mirror struct {
	Name string
	// Entry is the value below Name in mirrors.yaml, ready to be written.
	Entry *yamlpos.Map
}

// BuildCache is the mirror for binaries.
type BuildCache struct {
	Mirror
	Push bool // packages are pushed to it
	// Key is the path of the private key given by a version 1 cache file, ""
	// otherwise: versions 2 and 3 put it among Mirrors.Keys.
	Key string
}

// Bootstrap is a bootstrap mirror: remote (URL) or local (Root).
type Bootstrap struct {
	URL  string
	Root string
	// Metadata are those of "sources" and "binaries" that exist below Root/metadata.
	Metadata []string
}

// KeyFile is a key to be written below the configuration directory.
type KeyFile struct {
	Path    string // key_store/<name>.priv.gpg or key_store/<name>.pub.gpg
	Private bool
	Data    []byte
}
