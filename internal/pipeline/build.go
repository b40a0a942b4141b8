package pipeline

import (
	"context"
	"fmt"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
)

// BuildOptions are what package build takes, with files and directories in place of
// what is read from them: Stack, ChangeCache and Report of build.Options are set here.
type BuildOptions struct {
	build.Options

	Recipe  string // directory
	Cluster string // directory of the cluster configuration; "" for recipes that need none
	// ClusterFor finds it by the version of the recipe where Cluster is ""; it
	// may return "".
	ClusterFor func(recipeVersion int) (string, error)
	Mirrors    string // mirrors or cache file; "" for none
	// ChangeCacheFile is a mirrors or cache file with the build cache of changes; ""
	// for none. A build that is Protected does not even read it.
	ChangeCacheFile string
	Mount           string // "" is what the recipe says
	Develop         bool   // Spack's development version is meant
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
	if o.ChangeCacheFile == "" || o.Protected || in.Recipe.Builder == recipe.BuilderScript {
		return nil, nil
	}
	m, err := site.LoadMirrors(o.ChangeCacheFile, in.Recipe.Version, in.Mount)
	if err == nil && m.BuildCache == nil {
		err = fault.New(fault.Invalid, "%s names no build cache", o.ChangeCacheFile)
	}
	if err != nil {
		return nil, fmt.Errorf("load the build cache of changes: %w", err)
	}
	return m, nil
}

func (o BuildOptions) options(in stack.Input, report *build.Report) (build.Options, error) {
	options := o.Options
	options.Stack, options.Report = in, report
	var err error
	options.ChangeCache, err = o.changeCache(in)
	return options, err
}
