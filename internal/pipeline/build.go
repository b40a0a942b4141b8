package pipeline

import (
	"context"
	"fmt"
	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
)

// BuildOptions say what is built, where and how.
type BuildOptions struct {
	Recipe  string // directory
	Cluster string // directory of the cluster configuration; "" for recipes that need none
	// ClusterFor finds it by the version of the recipe where Cluster is ""; it
	// may return "".
	ClusterFor func(recipeVersion int) (string, error)
	Mirrors    string // mirrors or cache file; "" for none
	// ChangeCache is a mirrors or cache file with the build cache of changes; "" for
	// none. A build that is Protected does not even read it.
	ChangeCache string
	CAFile      string // certificates to trust, for build caches in registries; "" for none
	System      string
	UArch       string
	Mount       string // "" is what the recipe says
	Develop     bool   // Spack's development version is meant

	Spack       string // Spack checkout; "" is found or cloned
	Root        string // of builds; "" is in memory
	Engine      string // build.EngineDirect, "" or build.EngineStackinator
	Stackinator string // program or directory of the latter; "" is found on PATH

	NoSandbox bool     // build on the bare machine
	Network   bool     // leave the network on for the recipe's own programs
	Offline   bool     // no network at all
	Env       []string // variables of ours that the build may see
	Hide      []string // paths that the build must not see
	Jobs      int
	// MemoryPerJob in bytes limits Jobs where it is 0; 0 is the default.
	MemoryPerJob int64
	LogDir       string

	AirGapped   bool // offline, and what is missing is told before the build
	Protected   bool // of a protected ref: hooks may have secrets, the shared cache may be written
	Hooks       build.Hooks
	Restricted  bool // what programs say is told nobody
	Limits      build.Limits
	SourceCache string // directory of sources; "" for none
	// NoBuildCache leaves build caches aside: every package is built.
	NoBuildCache bool
	StrictViews  bool   // clashes in views are errors
	ArchiveDir   string // receives the logs of a build that failed
	Events       event.Sink
}

// Load reads the inputs of a build.
func (o BuildOptions) Load(ctx context.Context) (stack.Input, error) {
	r, err := recipe.Load(ctx, o.Recipe)
	if err != nil {
		return stack.Input{}, fmt.Errorf("load recipe %s:\n%w", o.Recipe, err)
	}
	for _, w := range r.Warnings {
		o.Events.Warn("recipe", "%s", w.Plain())
	}
	in := stack.Input{Recipe: r, Mount: o.Mount, System: o.System, Develop: o.Develop}
	if in.Mount == "" {
		in.Mount = r.Store
	}
	if r.Builder == recipe.BuilderScript {
		return in, nil
	}
	dir := o.Cluster
	if dir == "" && o.ClusterFor != nil {
		if dir, err = o.ClusterFor(r.Version); err != nil {
			return in, err
		}
	}
	if dir == "" {
		err := fault.New(fault.Usage, "recipe %s needs a cluster configuration", o.Recipe)
		return in, fault.WithHint(err, "give one with --cluster DIR, or --system NAME and 'clusters:' in the site file")
	}
	if in.Cluster, err = site.LoadCluster(dir); err != nil {
		return in, fmt.Errorf("load cluster configuration: %w", err)
	}
	if o.Mirrors != "" {
		if in.Mirrors, err = site.LoadMirrors(o.Mirrors, r.Version, in.Mount); err != nil {
			return in, fmt.Errorf("load mirrors: %w", err)
		}
	}
	return in, nil
}

// Build makes an installed store of a recipe. The caller closes the result.
func Build(ctx context.Context, o BuildOptions) (*build.Result, error) {
	in, err := o.Load(ctx)
	if err != nil {
		return nil, err
	}
	return o.run(ctx, in, nil)
}

// run builds, and tells in report, if that is not nil, what was done.
func (o BuildOptions) run(ctx context.Context, in stack.Input, report *build.Report) (*build.Result, error) {
	options, err := o.options(in, report)
	if err != nil {
		return nil, err
	}
	result, err := build.Run(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", in.Recipe.Name, err)
	}
	return result, nil
}

// changeCache reads the build cache of changes, where it matters.
func (o BuildOptions) changeCache(in stack.Input) (*site.Mirrors, error) {
	if o.ChangeCache == "" || o.Protected || in.Recipe.Builder == recipe.BuilderScript {
		return nil, nil
	}
	m, err := site.LoadMirrors(o.ChangeCache, in.Recipe.Version, in.Mount)
	if err == nil && m.BuildCache == nil {
		err = fault.New(fault.Invalid, "%s names no build cache", o.ChangeCache)
	}
	if err != nil {
		return nil, fmt.Errorf("load the build cache of changes: %w", err)
	}
	return m, nil
}

func (o BuildOptions) options(in stack.Input, report *build.Report) (build.Options, error) {
	change, err := o.changeCache(in)
	return build.Options{
		ChangeCache: change, CAFile: o.CAFile,
		Stack: in, System: o.System, UArch: o.UArch, Root: o.Root, Spack: o.Spack, Engine: o.Engine, Stackinator: o.Stackinator, NoSandbox: o.NoSandbox,
		Network: o.Network, Offline: o.Offline, Env: o.Env, Hide: o.Hide, Jobs: o.Jobs, MemoryPerJob: o.MemoryPerJob, LogDir: o.LogDir, Events: o.Events,
		AirGapped: o.AirGapped, Protected: o.Protected, Hooks: o.Hooks, Restricted: o.Restricted, Limits: o.Limits, ArchiveDir: o.ArchiveDir, Report: report, NoBuildCache: o.NoBuildCache, StrictViews: o.StrictViews, SourceCache: o.SourceCache,
	}, err
}
