package stack

import (
	"io/fs"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/recipe"
)

// Tree is the build tree of one recipe for one cluster: the files below BUILD
// that describe the stack to Spack, and the same description as values for an
// engine that runs the build itself. Paths are slash-separated and relative to
// BUILD unless said otherwise; BUILD/store appears at Mount inside the sandbox.
type Tree struct {
	Version      int    `json:"version"`       // recipe format: 1, 2, 3; 0 for the script builder
	Name         string `json:"name"`          // of the recipe
	Mount        string `json:"mount"`         // absolute
	BuildDir     string `json:"build"`         // absolute path of BUILD as it is written into files
	SpackVersion string `json:"spack_version"` // "MAJOR.MINOR", a guess from the commit; "" for the script builder
	DefaultView  string `json:"default_view"`  // "" for none
	Cleanup      string `json:"cleanup"`       // "none", "runtime" or "build": what to uninstall after the build

	Files  []File   `json:"files"`
	Dirs   []string `json:"dirs"`   // empty directories to create
	Copies []Copy   `json:"copies"` // in order
	Clones []Clone  `json:"clones"` // Spack first, then package repositories by precedence

	Environments []SpackEnvironment `json:"environments"` // in build order
	Config       UserConfig         `json:"config"`
	Modules      Modules            `json:"modules"`
	Caches       Caches             `json:"caches"`
	Hooks        Hooks              `json:"hooks"`
	// Replaced lists the package entries that another file replaced as a whole.
	Replaced []Replacement `json:"replaced,omitempty"`
}

// File is a regular file.
type File struct {
	Path string      `json:"path"`
	Mode fs.FileMode `json:"mode"`
	Data []byte      `json:"data"`
}

// Copy is a file or directory that is copied, links followed, readable for all.
// A Packages copy adds to To; any other makes it anew.
type Copy struct {
	From string `json:"from"` // absolute
	To   string `json:"to"`
	// Within is the directory, absolute and trusted, that From is below: links
	// may not leave the git repository (or, without one, the directory) it is
	// in. Empty: From itself is trusted.
	Within string `json:"within,omitempty"`
	// Packages: copy only the sub-directories of From, and of those only the
	// ones that To does not have yet: the first repository that defines a
	// package wins.
	Packages bool     `json:"packages,omitempty"`
	Exclude  []string `json:"exclude,omitempty"` // base names left out at every level
	// Secrets are addresses whose credentials are left out of the copied config.yaml.
	Secrets []string `json:"-"`
}

// Clone is a git repository that a build needs below BUILD.
type Clone struct {
	Name   string  `json:"name"` // "spack" or the name of the package repository
	To     string  `json:"to"`
	Repo   string  `json:"repo"`   // URL
	Commit *string `json:"commit"` // branch, tag or commit; nil: the default branch
	// CopyPath, if not empty, is the directory inside the clone that is copied
	// to CopyTo (replacing it) once the commit is checked out.
	CopyPath string `json:"copy_path,omitempty"`
	CopyTo   string `json:"copy_to,omitempty"`
}

// Kind says what a SpackEnvironment is for.
type Kind string

// The kinds of environments.
const (
	KindCompiler    Kind = "compiler"    // builds compilers for later environments (versions 1 and 2)
	KindEnvironment Kind = "environment" // what the recipe asked for; all of it in version 3
	KindScript      Kind = "script"      // no Spack: the views of a script build
)

// SpackEnvironment is one directory with a spack.yaml, to be concretized,
// installed and viewed on its own.
type SpackEnvironment struct {
	Name string `json:"name"`
	Dir  string `json:"dir"` // holds spack.yaml
	Kind Kind   `json:"kind"`
	// Include names the files beside spack.yaml that it includes. Those that
	// are not among the tree's Files are made while building, before
	// concretizing: config.yaml sets config:install_tree:root to Mount,
	// packages.yaml holds what ExternalFind finds and (from version 2 on) the
	// BuiltWith compilers, compilers.yaml (version 1) the BuiltWith compilers.
	Include []string `json:"include,omitempty"`
	Specs   []string `json:"specs,omitempty"` // the roots, as in spack.yaml
	// BuiltWith lists the compilers, built by earlier environments, to find
	// before concretizing. Empty: the cluster's own compiler.
	BuiltWith []Compiler `json:"built_with,omitempty"`
	// ExternalFind lists packages for `spack external find`; NotBuildable adds
	// --not-buildable to it.
	ExternalFind []string `json:"external_find,omitempty"`
	NotBuildable bool     `json:"not_buildable,omitempty"`
	Groups       []Group  `json:"groups,omitempty"` // version 3: the spec groups in order
	// CacheExclude names packages that are never pushed to a build cache;
	// CacheExcludeGit leaves out versions that start with "git." too.
	CacheExclude    []string `json:"cache_exclude,omitempty"`
	CacheExcludeGit bool     `json:"cache_exclude_git,omitempty"`
	Views           []View   `json:"views,omitempty"` // in file order
}

// Compiler is a compiler that a build uses or offers.
type Compiler struct {
	Package string `json:"package"` // name of its Spack package, such as "gcc"
	// Environment is the name of the environment that installs it (version 3:
	// of the group), "" for the cluster's own compiler.
	Environment string `json:"environment"`
	// Spec for `spack find` in that environment. Empty: every explicit spec.
	Spec string `json:"spec,omitempty"`
}

// Group is a spec group of a version 3 environment.
type Group struct {
	Name  string   `json:"name"`
	Needs []string `json:"needs,omitempty"` // groups that are built before
	Specs []string `json:"specs"`
}

// View is one view of an environment.
type View struct {
	Name      string `json:"name"`       // what users say
	SpackName string `json:"spack_name"` // its name in spack.yaml: "default" in version 1
	Group     string `json:"group,omitempty"`
	Root      string `json:"root"` // absolute, below Mount
	// AddCompilers asks for links to the executables of Compilers in Root/bin.
	AddCompilers bool       `json:"add_compilers"`
	Compilers    []Compiler `json:"compilers,omitempty"`
	// PrefixPaths lists directories, relative to Root, that are prepended to a
	// variable if they exist after the build.
	PrefixPaths []recipe.PrefixPath `json:"prefix_paths,omitempty"`
	// Variables come from the recipe; they go on top of those that Spack
	// computes (meta.Variables.Overlay).
	Variables   meta.Variables `json:"variables"`
	Description string         `json:"description"`
}

// UserConfig is the Spack configuration inside the image (Mount/config).
type UserConfig struct {
	// Install lists the files that are copied, mode 644, once the compilers
	// are built. From is a path below BUILD here.
	Install []Copy `json:"install"`
	// Compilers are added to the installed packages.yaml (version 1:
	// compilers.yaml).
	Compilers []Compiler `json:"compilers,omitempty"`
}

// Modules describes the module files of a stack.
type Modules struct {
	Types []string `json:"types,omitempty"` // "tcl", "lmod"; empty: no modules
	Dir   string   `json:"dir,omitempty"`   // configuration scope for `spack module`, below BUILD
	Root  string   `json:"root,omitempty"`  // absolute, below Mount
	// FromSpack: the recipe has no modules.yaml, so Spack's own default file is
	// used; DefaultModules makes it once Spack is there.
	FromSpack bool `json:"from_spack,omitempty"`
	// Compilers to find in scope Dir before module files are written.
	Compilers []Compiler `json:"compilers,omitempty"`
}

// Caches describes the build cache and the keys to trust.
type Caches struct {
	Mirror string `json:"mirror,omitempty"` // name of the build cache in mirrors.yaml, "" for none
	Push   bool   `json:"push,omitempty"`   // push what was built
	// Keys are files for `spack gpg trust`: absolute, or below BUILD.
	Keys []string `json:"keys,omitempty"`
}

// Hooks are executables among the Files, "" where the recipe has none. They run
// inside the sandbox under the same name below Mount.
type Hooks struct {
	PreInstall  string `json:"pre_install,omitempty"`
	PostInstall string `json:"post_install,omitempty"`
	Build       string `json:"build,omitempty"` // script builder
}

// Replacement says that the entry of a package in one packages file took the
// place of another's. Entries are never merged, so what stood there is gone.
type Replacement struct {
	Package string `json:"package"`
	By      string `json:"by"`   // file that won
	Over    string `json:"over"` // file whose entry is gone
}
