// Package recipe reads and checks recipes: the directories of YAML that describe
// a user environment, in the formats 1, 2 and 3 and that of the script builder.
package recipe

import (
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

// The builders a recipe can name.
const (
	BuilderSpack  = "spack"
	BuilderScript = "script"
)

// Recipe is a checked recipe with all defaults filled in.
type Recipe struct {
	Dir            string
	Version        int    // 1, 2 or 3; 0 for the script builder
	Builder        string // BuilderSpack or BuilderScript
	Name           string
	Description    string
	HasDescription bool
	Store          string // mount point the recipe asks for; the command line may override it
	DefaultView    string // "" = none
	Spack          Spack
	Modules        bool          // modules are switched on
	ModulesFile    *yamlpos.Node // nil without modules.yaml
	Cleanup        string        // version 3: none, runtime or build
	Compilers      Compilers
	Environments   []Environment // file order

	// Packages is the mapping below `packages:` of packages.yaml, nil without the file.
	Packages *yamlpos.Node
	// PackageRepo is the directory that holds packages/, "" without one.
	PackageRepo string

	PreInstall, PostInstall *Hook
	Build                   *Hook // the script builder's program

	// Extra is the path of the directory extra, "" without one.
	Extra string

	// Warnings are what the author should know and what is no error.
	Warnings fault.Problems
}

// Spack says which Spack and which package repositories the recipe uses.
type Spack struct {
	Repo     string
	Commit   *string             // nil = default branch
	Packages []PackageRepository // versions 2 and 3, file order = precedence

	// Node is the mapping in config.yaml, for messages that point at it.
	Node *yamlpos.Node
	// Block is the `spack` mapping of config.yaml with the defaults that the
	// upstream schema injects, as configure.json records it.
	Block *yamlpos.Map
}

// PackageRepository is a git repository of Spack packages.
type PackageRepository struct {
	Name, Repo string
	Path       string  // of the package repository within the git repository
	Commit     *string // nil = default branch
}

// Compilers are the contents of compilers.yaml.
type Compilers struct {
	Bootstrap    string // version 1: spec, such as gcc@11.3
	GCC          []string
	LLVM         []string   // version 1: nvhpc or llvm specs
	LLVMRequires string     // version 1: the gcc that builds LLVM
	V2           []Compiler // versions 2 and 3, in the order gcc nvhpc llvm llvm-amdgpu intel-oneapi-compilers
}

// Compiler is one entry of compilers.yaml in versions 2 and 3.
type Compiler struct {
	Name    string
	Version string  // "" if System
	Spec    *string // version 3: replaces the default suffix of the spec
	System  bool    // gcc of the cluster
}

// Environment is one entry of environments.yaml.
type Environment struct {
	Name       string
	Node       *yamlpos.Node
	Toolchains []Toolchain // version 1
	Compilers  []string    // versions 2 and 3
	Specs      []string
	Unify      any // bool or "when_possible"
	Deprecated bool
	Variants   []string
	MPI        *MPI    // version 1; nil = no MPI
	Network    Network // versions 2 and 3
	Packages   []string
	Duplicates string   // strategy: minimal, full or none
	Prefer     []string // nil = unset
	Views      []View
}

// Toolchain is a compiler of a version 1 environment.
type Toolchain struct{ Toolchain, Spec string }

// MPI is the MPI of a version 1 environment.
type MPI struct {
	Spec string // verbatim, such as cray-mpich@8.1.29
	GPU  string // cuda, rocm, "" = none
}

// Network is the network of a version 2 or 3 environment.
type Network struct {
	MPI   string // "" = none
	Specs []string
}

// View is a file system view of an environment, or of the script builder's store.
type View struct {
	Name                  string
	Node                  *yamlpos.Node
	Link                  string // roots, all or run
	Select, Exclude       []string
	HasSelect, HasExclude bool
	Projections           *yamlpos.Map // nil = absent
	AddCompilers          bool
	PrefixPaths           []PrefixPath // file order, relative to the view's root
	EnvVars               EnvVars

	// Description and Paths are the script builder's; Paths are relative to the store.
	Description string
	Paths       []PrefixPath
}

// PrefixPath is a variable and the directories a view adds to it.
type PrefixPath struct {
	Variable string
	Dirs     []string
}

// EnvVars are the changes a view makes to the environment: first all of Set,
// then all of PrependPath, then all of AppendPath, each in file order.
type EnvVars struct{ Set, PrependPath, AppendPath []EnvVar }

// EnvVar is one change; a nil Value unsets.
type EnvVar struct {
	Name  string
	Value *string
}

// Hook is a program of the recipe, its text not yet rendered.
type Hook struct{ Path, Text string }
