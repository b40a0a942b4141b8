package build

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/git"
)

// Report says what a build did, how long it took and what it needed.
type Report struct {
	Recipe  string    `json:"recipe"` // name
	Mount   string    `json:"mount"`
	System  string    `json:"system,omitempty"`
	UArch   string    `json:"uarch,omitempty"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	// CPUSeconds is what the programs of the build took, on all processors
	// together.
	CPUSeconds float64 `json:"cpu_seconds"`
	Jobs       int     `json:"jobs"` // things compiled at once, at last
	Sandbox    bool    `json:"sandbox"`
	Peak       Peak    `json:"peak"`

	Stages       []Stage      `json:"stages"`
	Spack        *Spack       `json:"spack,omitempty"` // nil for the script builder
	Repositories []Repository `json:"repositories,omitempty"`
	Cache        *Cache       `json:"cache,omitempty"` // nil without a build cache
	Packages     []Package    `json:"packages,omitempty"`
	Clashes      []Clash      `json:"clashes,omitempty"` // in views
	Failure      *Failure     `json:"failure,omitempty"` // nil if it was built
	Error        string       `json:"error,omitempty"`   // why it was not built, if that is not known as a failure
}

// Peak is the most that a build needed at one time, in bytes. It is measured
// every few seconds and after each stage.
type Peak struct {
	Storage int64 `json:"storage"` // of the build directory
	Memory  int64 `json:"memory"`  // of its processes, without the build directory
}

// Stage is a part of a build.
type Stage struct {
	Name       string  `json:"name"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds,omitempty"`
	Retried    bool    `json:"retried,omitempty"`
	Jobs       int     `json:"jobs,omitempty"` // of the second try, if it had fewer than the first
	Failed     bool    `json:"failed,omitempty"`
}

// Spack is the Spack that built.
type Spack struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"` // "" if it is not a git checkout
	Source  string `json:"source"`           // how it was found, or the URL it came from
	Dir     string `json:"dir,omitempty"`    // "" for a clone
}

// Repository is a directory of packages that was built from, besides Spack's own.
type Repository struct {
	Name   string `json:"name"`
	Source string `json:"source"`           // directory or URL it came from
	Commit string `json:"commit,omitempty"` // "" if it is in no git repository
	Dirty  bool   `json:"dirty,omitempty"`  // it has changes that are in no commit
}

// repositories tells what the packages of a build tree come from.
func (j *job) repositories() {
	for _, c := range j.tree.Copies {
		if !c.Packages {
			continue
		}
		r := Repository{Name: filepath.Base(filepath.Dir(c.From)), Source: filepath.Dir(c.From)}
		if at, err := git.Describe(j.ctx, c.From); err == nil {
			r.Commit, r.Dirty = at.Commit, at.Dirty
		}
		j.report.Repositories = append(j.report.Repositories, r)
	}
}

// Cache says what a build cache was good for.
type Cache struct {
	Hits   int `json:"hits"`   // packages that it had
	Built  int `json:"built"`  // packages that it did not have
	Pushed int `json:"pushed"` // packages that it has now
}

// Package is a package of the store, or one of the system that it uses.
type Package struct {
	Name     string  `json:"name"`
	Version  string  `json:"version"`
	Hash     string  `json:"hash"`
	External bool    `json:"external,omitempty"` // of the system
	Cached   bool    `json:"cached,omitempty"`   // from a build cache
	Seconds  float64 `json:"seconds,omitempty"`  // 0 if it was not built now
}

func sortPackages(packages []Package) {
	slices.SortFunc(packages, func(a, b Package) int {
		return strings.Compare(a.Name+" "+a.Version+" "+a.Hash, b.Name+" "+b.Version+" "+b.Hash)
	})
}
