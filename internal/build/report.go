package build

import (
	"slices"
	"strings"
)

// Report says what a build did and how long it took.
type Report struct {
	Sandbox  bool      `json:"sandbox"`
	Stages   []Stage   `json:"stages"`
	Spack    *Spack    `json:"spack,omitempty"` // nil for the script builder
	Packages []Package `json:"packages,omitempty"`
}

// Stage is a part of a build.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Spack is the Spack that built.
type Spack struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"` // "" if it is not a git checkout
	Source  string `json:"source"`           // directory or URL it came from
}

// Package is a package of the store, or one of the system that it uses.
type Package struct {
	Name     string  `json:"name"`
	Version  string  `json:"version"`
	Hash     string  `json:"hash"`
	External bool    `json:"external,omitempty"` // of the system
	Seconds  float64 `json:"seconds,omitempty"`  // 0 if it was not built now
}

func sortPackages(packages []Package) {
	slices.SortFunc(packages, func(a, b Package) int {
		return strings.Compare(a.Name+" "+a.Version+" "+a.Hash, b.Name+" "+b.Version+" "+b.Hash)
	})
}
