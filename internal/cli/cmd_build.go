package cli

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
)

func recipeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "recipe", Aliases: []string{"r"}, Usage: "the recipe's directory `DIR`"},
		&cli.StringFlag{Name: "cluster", Usage: "the cluster configuration's directory `DIR` (else that of the system, from the site file)"},
		&cli.StringFlag{Name: "mount", Aliases: []string{"m"}, Usage: "mount point `PATH` of the image (else what the recipe says)"},
		&cli.StringFlag{Name: "mirrors", Usage: "build caches and mirrors from `FILE`"},
		&cli.BoolFlag{Name: "develop", Usage: "the recipe's Spack is the development version"},
	}
}

// machineFlags say what this machine has for builds.
func machineFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "source-cache", Usage: "take sources from `DIR`, and store fetched ones there"},
		&cli.StringFlag{Name: "spack", Usage: "the Spack checkout `DIR` (else spack on PATH, else a clone of what the recipe names)", EnvVars: []string{"UENV_CI_SPACK"}},
		&cli.StringFlag{Name: "engine", Value: build.EngineDirect, Usage: "build Spack recipes with the `direct|stackinator` engine: our own (proven with Spack 0.23, not yet with 1.x), or stackinator with its makefiles"},
		&cli.StringFlag{Name: "stackinator", Usage: "`PATH` of stackinator's program stack-config, or of a directory with it (else the one on PATH)"},
		&cli.StringFlag{Name: "build-root", Usage: "build in a private directory below `DIR` (else in memory, /dev/shm)"},
	}
}

func buildCommand() *command {
	flags := append(recipeFlags(),
		&cli.StringFlag{Name: "change-cache", Usage: "the build cache `FILE` of unaccepted changes: only their builds read and write it"},
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write the image to `FILE` (else store.squashfs in the working directory, or nowhere with --push)"},
		&cli.BoolFlag{Name: "no-sandbox", Usage: "build on the bare machine, where the mount point is then created"},
		&cli.BoolFlag{Name: "hook-network", Usage: "leave the network on for the recipe's own programs"},
		&cli.BoolFlag{Name: "strict-views", Usage: "fail if two packages of a view have the same file with different content (else warn)"},
		&cli.BoolFlag{Name: "offline", Usage: "use no network at all"},
		&cli.StringSliceFlag{Name: "env", Usage: "let the build see the variable `NAME` (variables with the prefix UENV_CIBUILDV_ are always visible)"},
		&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "run `N` compilations at once (else one per processor, memory permitting)"},
		&cli.IntFlag{Name: "memory-per-job", Usage: "without --jobs: run only as many compilations as there is `MIB` of memory for each (else 2048)"},
		&cli.StringFlag{Name: "logs", Usage: "keep the logs of the build in `DIR`"},
	)
	return &command{
		name: "build", group: "Recipes", creates: true, writes: true, usage: "build a recipe into an image",
		args: "LABEL --recipe DIR", minArgs: 1, maxArgs: 1,
		details: `The recipe is built in memory, in a sandbox where the store appears at the mount
point; nothing remains of the build but the image. LABEL needs @system and %uarch;
without --push it needs no tag. With --push an image that the registry already has,
by content key, is not built again but gets the label.`,
		examples: `# build only
uenv-ci build --recipe recipes/hello/1.0 hello/1.0@demo%amd64 --out hello.squashfs
# is it the same if it is built again?
uenv-ci build --recipe recipes/hello/1.0 hello/1.0@demo%amd64 --verify-reproducible
# build and publish
uenv-ci build --recipe recipes/prgenv-gnu/25.11/gh200 prgenv-gnu/25.11:42@daint%gh200 --push
# let an installed stackinator build, here a recipe for Spack 1.x
uenv-ci build --recipe recipes/cp2k/2026.1/gh200 cp2k/2026.1:7@daint%gh200 --engine stackinator --stackinator ~/stackinator-v7 --push`,
		flags: slices.Concat(flags, machineFlags(), publishFlags(), packFlags()),
		run:   runBuild,
	}
}

// toBuild is what is built, where that is not said by flags of the same names.
type toBuild struct {
	recipe, cluster, mount, system, uarch, logs string
	jobs                                        int
}

func (in *invocation) buildOptions(ctx context.Context, system, uarch string) (pipeline.BuildOptions, error) {
	if in.String("recipe") == "" {
		return pipeline.BuildOptions{}, usageError([]string{in.Command.Name}, "--recipe is missing")
	}
	if in.Int("jobs") < 0 {
		return pipeline.BuildOptions{}, usageError([]string{in.Command.Name}, "--jobs %d is negative", in.Int("jobs"))
	}
	return in.optionsFor(ctx, toBuild{
		recipe: in.String("recipe"), cluster: in.String("cluster"), mount: in.String("mount"),
		system: system, uarch: uarch, logs: in.String("logs"), jobs: in.Int("jobs"),
	})
}

func (in *invocation) optionsFor(ctx context.Context, t toBuild) (pipeline.BuildOptions, error) {
	if info, err := os.Stat(t.recipe); err != nil || !info.IsDir() {
		return pipeline.BuildOptions{}, fault.New(fault.NotFound, "recipe %s is not a directory", t.recipe)
	}
	dir, err := filepath.Abs(t.recipe)
	if err != nil {
		return pipeline.BuildOptions{}, err
	}
	if in.Int("memory-per-job") < 0 {
		return pipeline.BuildOptions{}, usageError([]string{in.Command.Name}, "--memory-per-job %d is negative", in.Int("memory-per-job"))
	}
	ofSite, use := in.neededOf(ctx, dir, in.site.Build), settings{in: in}
	if in.String("engine") == build.EngineStackinator {
		ofSite = in.withoutCaches(ofSite)
	}
	sources := use.or("source-cache", ofSite.SourceCache)
	if sources != "" {
		if sources, err = filepath.Abs(sources); err != nil {
			return pipeline.BuildOptions{}, err
		}
	}
	o := pipeline.BuildOptions{
		Recipe: dir, Cluster: t.cluster, ClusterFor: in.clusterOf(t.system), Mirrors: use.or("mirrors", ofSite.Mirrors),
		ChangeCacheFile: use.or("change-cache", ofSite.ChangeCache), Mount: t.mount, Develop: in.Bool("develop"),
		Options: build.Options{
			CAFile: in.String("ca-file"), System: t.system, UArch: t.uarch, Spack: use.or("spack", ofSite.Spack),
			Engine: in.String("engine"), Stackinator: in.String("stackinator"), Root: use.or("build-root", ofSite.Root),
			NoSandbox: in.Bool("no-sandbox"), Network: in.Bool("hook-network"), Offline: in.Bool("offline"), StrictViews: in.Bool("strict-views"),
			SourceCache: sources, Env: commaList(in.StringSlice("env")), Jobs: cmp.Or(t.jobs, ofSite.Jobs),
			MemoryPerJob: int64(cmp.Or(in.Int("memory-per-job"), ofSite.MemoryPerJob)) << 20, LogDir: t.logs,
			Hide: nonEmpty(in.String("token"), in.String("registry-config")),
		},
	}
	return o, use.err
}

// neededOf leaves aside what only builds with Spack need, where that has variables that
// are not set, and the recipe in dir is a script.
func (in *invocation) neededOf(ctx context.Context, dir string, settings site.BuildSettings) site.BuildSettings {
	forSpack := []*site.Value{&settings.Spack, &settings.Mirrors, &settings.ChangeCache, &settings.SourceCache}
	isUnset := func(v *site.Value) bool { _, err := v.Get(); return err != nil }
	if !slices.ContainsFunc(forSpack, isUnset) {
		return settings
	}
	if r, err := recipe.Load(ctx, dir); err != nil || r.Builder != recipe.BuilderScript {
		return settings
	}
	for _, v := range forSpack {
		*v = site.Value{}
	}
	return settings
}

// withoutCaches leaves aside what the site has for all builds and stackinator cannot
// use. What the command line asks for is refused.
func (in *invocation) withoutCaches(settings site.BuildSettings) site.BuildSettings {
	for name, setting := range map[string]*site.Value{
		"mirrors": &settings.Mirrors, "change_cache": &settings.ChangeCache, "source_cache": &settings.SourceCache,
	} {
		if setting.Given() {
			in.events.Warn("build", "build.%s of the site file is ignored: the engine stackinator does not use it", name)
			*setting = site.Value{}
		}
	}
	return settings
}

// clusterOf finds the configuration of a system in the site's directories; ""
// if the site has none.
func (in *invocation) clusterOf(system string) func(recipeVersion int) (string, error) {
	return func(recipeVersion int) (string, error) {
		if !in.site.Clusters.Given() {
			return "", nil
		}
		return in.site.ClusterDirFor(system, recipeVersion)
	}
}

func runBuild(ctx context.Context, in *invocation) (result, error) {
	l, err := in.label(0, in.build())
	if err != nil {
		return nil, err
	}
	for _, part := range l.Missing() {
		if part != "tag" || in.Bool("push") {
			return nil, usageError([]string{"build"}, "label %q has no %s", in.arg(0), part)
		}
	}
	if in.Bool("push") {
		if err := in.refuseDeploy(l); err != nil {
			return nil, err
		}
	}
	o, err := in.buildImageOptions(ctx, l)
	if err != nil {
		return nil, err
	}
	built, err := pipeline.BuildImage(ctx, l, o)
	err = in.unpublished(built, err)
	if err != nil && built.Reproducible != nil {
		return buildResult(built), err
	}
	if err != nil {
		return nil, err
	}
	return buildResult(built), nil
}

type buildResult pipeline.BuildReport

func (r buildResult) text(p *printer) {
	p.printf("%s  %s  %s", r.Label, event.FormatBytes(r.Image.Size), formatSeconds(r.Seconds))
	if r.Existing != "" {
		p.printf("already built: %s", r.Existing)
	}
	if r.Reproducible != nil && r.Reproducible.Same {
		p.printf("reproducible: two builds made the same %d files", r.Reproducible.Files)
	}
	if r.Image.Path != "" {
		p.printf("%s", r.Image.Path)
	}
	if r.Pushed != nil {
		p.printf("%s", r.Pushed.Digest)
	}
}
