package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// spackBuild is a build by Spack. It takes the direct way: one environment for
// all views of the same specs, one concretization, one installation, and files
// of Spack read instead of asking for what they say.
type spackBuild struct {
	*job
	spack     spack.Installation // as programs see it
	spackDir  string             // the same on the host
	dirty     bool               // it has changes that are in no commit
	compilers *toolbox
	seconds   map[string]float64 // that packages took to build, by hash
	specs     map[string]spack.Spec
	cached    map[string]bool // packages that came from a build cache, by hash
	publisher *publisher      // nil if no build cache is written
	caches    []buildCache
	fetched   hashSet // packages that came from a registry
	// environments are those that are installed, but for those of compilers.
	environments         []environment
	compilerEnvironments []environment
}

func (j *job) buildSpack(ctx context.Context) (err error) {
	b := &spackBuild{job: j, seconds: map[string]float64{}, specs: map[string]spack.Spec{}, cached: map[string]bool{}}
	if err := j.stageTries("spack", twice, func() error { return b.setUp(ctx) }); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.publisher.close()) }()
	if err := j.stage("cache", func() error { return b.useCaches(ctx) }); err != nil {
		return err
	}
	if err := b.useIndexes(ctx); err != nil {
		return err
	}
	if len(j.tree.Clones) > 1 {
		if err := j.stageTries("repositories", twice, func() error { return b.cloneRepositories(ctx) }); err != nil {
			return err
		}
	}
	if err := j.hook(ctx, "pre-install", j.tree.Hooks.PreInstall); err != nil {
		return err
	}
	environments, err := plan(j.tree)
	if err != nil {
		return err
	}
	if err := b.buildAll(ctx, environments); err != nil {
		return err
	}
	if err := b.cleanUp(ctx); err != nil {
		return err
	}
	if err := b.groupCompilers(); err != nil {
		return err
	}
	if err := b.complete(ctx); err != nil {
		return err
	}
	return j.hook(ctx, "post-install", j.tree.Hooks.PostInstall)
}

// setUp finds Spack, or clones it, and makes it usable in the cell.
func (b *spackBuild) setUp(ctx context.Context) (err error) {
	in, ok, err := spack.Locate(b.Spack)
	if err != nil {
		return err
	}
	if err := b.missingInputs(ok); err != nil {
		return err
	}
	if ok {
		b.recognize(ctx, &in)
	} else if in, err = b.cloneSpack(ctx); err != nil {
		return err
	}
	if err := b.accept(in); err != nil {
		return err
	}
	b.spackDir = in.Dir
	dir := ""
	if ok {
		dir = in.Dir
	}
	if in.Dir, err = b.cell.put(in.Dir, "spack"); err != nil {
		return err
	}
	b.spack = in
	b.report.Spack = &Spack{Version: in.Version.String(), Commit: in.Commit, Source: in.Source, Dir: dir}
	b.Events.Info("spack", "Spack %s from %s", in.Version, in.Source)

	env := spack.Environ(b.cell.inside("config"), b.cell.inside("cache"), b.cell.inside("user"))
	env = append(env, "PATH=/usr/bin:/bin:"+filepath.Join(in.Dir, "bin"))
	python, err := b.python(ctx)
	if err != nil {
		return err
	}
	env = append(env, python...)
	b.cell.env = append(b.cell.env, env...)
	if err := b.writeScope(); err != nil {
		return err
	}
	b.compilers, err = readToolbox(b.cell.host, b.tree.Version)
	return err
}

// recognize finds out which commit a Spack of this machine is, and warns if it is
// not what the recipe asks for.
func (b *spackBuild) recognize(ctx context.Context, in *spack.Installation) {
	if revision, err := git.Head(ctx, in.Dir); err == nil {
		in.Commit = revision.Commit
		if b.dirty = revision.Dirty; revision.Dirty {
			b.Events.Warn("spack", "%s has changes that are in no commit", in.Source)
		}
	}
	reference := b.Stack.Recipe.Spack.Commit
	switch {
	case reference == nil:
	case git.IsCommit(*reference) && *reference != in.Commit:
		b.Events.Warn("spack", "the recipe asks for Spack %s, %s is %s", *reference, in.Source, cmp.Or(in.Commit, "of unknown origin"))
	case !in.Version.Matches(*reference):
		b.Events.Warn("spack", "the recipe asks for Spack %s, %s is %s", *reference, in.Source, in.Version)
	}
}

// cloneSpack clones the Spack that the recipe asks for into the build directory.
func (b *spackBuild) cloneSpack(ctx context.Context) (spack.Installation, error) {
	i := slices.IndexFunc(b.tree.Clones, func(c stack.Clone) bool { return c.Name == "spack" })
	if b.Offline || i < 0 {
		return spack.Installation{}, fault.WithHint(fault.New(fault.NotFound, "there is no Spack on this machine, and cloning one is not allowed"),
			"name one with --spack DIR or %s", spack.Variable)
	}
	clone := b.tree.Clones[i]
	reference := ""
	if clone.Commit != nil {
		reference = *clone.Commit
	}
	b.Events.Info("spack", "clone %s at %s", git.WithoutCredentials(clone.Repo), reference)
	if err := os.RemoveAll(b.cell.path(clone.To)); err != nil {
		return spack.Installation{}, err
	}
	commit, err := git.Clone(ctx, clone.Repo, reference, b.cell.path(clone.To))
	if err != nil {
		return spack.Installation{}, fault.WithHint(err, "name a local Spack with --spack DIR or %s", spack.Variable)
	}
	in, err := spack.Open(b.cell.path(clone.To))
	in.Commit, in.Source = commit, git.WithoutCredentials(clone.Repo)
	return in, err
}

// engineScope is the directory of our own configuration for Spack, which other
// scopes may override.
const engineScope = "engine"

// writeScope writes Spack's configuration for this build. Packages are always built at
// the same path, whoever the user is.
func (b *spackBuild) writeScope() error {
	stage := filepath.Join("/tmp", "spack-stage")
	if b.cell.spec == nil {
		stage = b.cell.path("tmp", "spack-stage")
	}
	config := yamlpos.NewMap("config", yamlpos.NewMap(
		"install_tree", yamlpos.NewMap("root", b.mount()),
		"build_stage", []any{stage},
		"test_stage", b.cell.inside("cache/test"),
		"source_cache", b.cell.inside("cache/source"),
		"environments_root", b.cell.inside("cache/environments"),
		"license_dir", b.cell.inside("cache/licenses"),
	))
	return b.writeYAML(path.Join(engineScope, "config.yaml"), config)
}

// writeYAML writes a file below the build directory.
func (j *job) writeYAML(file string, document *yamlpos.Map) error {
	data, err := yamlpos.Marshal(document, yamlpos.MarshalOptions{})
	if err != nil {
		return fmt.Errorf("write %s: %w", path.Base(file), err)
	}
	return j.cell.files.write(file, data, 0o644)
}

// run runs a command of Spack.
func (b *spackBuild) run(ctx context.Context, s step, args ...string) error {
	args = append([]string{"-C", b.cell.inside(engineScope)}, args...)
	command := b.spack.Command(args...)
	s.cmd.Path, s.cmd.Args, s.spack = command.Path, command.Args, true
	return b.explain(ctx, classSpack, b.cell.run(ctx, s))
}

// twice is how often a stage is tried that may fail by chance.
const twice = 2

// readLock reads what Spack made of an environment.
func (b *spackBuild) readLock(env environment) (spack.Lock, error) {
	text, err := b.cell.files.read(path.Join(env.Dir, "spack.lock"))
	if err != nil {
		return spack.Lock{}, err
	}
	return spack.ParseLock(text)
}

// writeIncludes writes the files beside spack.yaml that a build makes.
func (b *spackBuild) writeIncludes(ctx context.Context, env environment) error {
	for _, name := range env.Include {
		file := path.Join(env.Dir, name)
		var err error
		switch name {
		case "config.yaml":
			tree := yamlpos.NewMap("root", b.mount())
			err = b.writeYAML(file, yamlpos.NewMap("config", yamlpos.NewMap("install_tree", tree)))
		case "compilers.yaml":
			err = b.writeCompilers(file, env.BuiltWith, false)
		case "packages.yaml":
			err = b.writePackages(ctx, env)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// findExternals lets Spack find packages of the system, into packages.yaml.
func (b *spackBuild) findExternals(ctx context.Context, env environment) error {
	if len(env.ExternalFind) == 0 {
		return nil
	}
	args := []string{"external", "find", "--scope=user"}
	if env.NotBuildable {
		args = append(args, "--not-buildable")
	}
	find := step{name: "external-" + env.Name}
	find.cmd.Env = []string{"SPACK_USER_CONFIG_PATH=" + b.cell.inside(env.Dir)}
	return b.run(ctx, find, append(args, env.ExternalFind...)...)
}

// complete writes what the image tells of all environments together.
func (b *spackBuild) complete(ctx context.Context) error {
	for _, spec := range b.specs {
		b.report.Packages = append(b.report.Packages, Package{
			Name: spec.Name, Version: spec.Version, Hash: spec.Hash, External: spec.External, Seconds: b.seconds[spec.Hash],
			Cached: b.cached[spec.Hash],
		})
		if c := b.report.Cache; c != nil && b.cached[spec.Hash] {
			c.Hits++
		} else if c != nil && b.seconds[spec.Hash] > 0 {
			c.Built++
		}
	}
	sortPackages(b.report.Packages)
	if err := b.present(ctx); err != nil {
		return err
	}
	return b.stage("metadata", func() error {
		if err := b.userConfig(); err != nil {
			return err
		}
		repo := git.WithoutCredentials(b.Stack.Recipe.Spack.Repo)
		b.spackScalars = map[string]*string{
			"UENV_SPACK_URL":    &repo,
			"UENV_SPACK_REF":    b.Stack.Recipe.Spack.Commit,
			"UENV_SPACK_COMMIT": nil,
		}
		if b.spack.Commit != "" {
			b.spackScalars["UENV_SPACK_COMMIT"] = &b.spack.Commit
		}
		maps.Copy(b.spackScalars, b.repositoryVariables())
		return b.writeEnv()
	})
}

// defaultModules reads Spack's own configuration for modules. One that was cloned
// is below the build directory, where hooks may have changed it.
func (b *spackBuild) defaultModules() ([]byte, error) {
	const file = "etc/spack/defaults/modules.yaml"
	if name, err := filepath.Rel(b.cell.host, b.spackDir); err == nil && filepath.IsLocal(name) {
		return b.cell.files.read(path.Join(name, file))
	}
	return os.ReadFile(filepath.Join(b.spackDir, file))
}

// userConfig puts the configuration for the image's users into the store.
func (b *spackBuild) userConfig() error {
	for _, c := range b.tree.Config.Install {
		data, err := b.cell.files.read(c.From)
		if errors.Is(err, os.ErrNotExist) && path.Base(c.From) == "packages.yaml" {
			data, err = []byte("packages: {}\n"), nil // neither cluster nor recipe has one
		}
		if err == nil && b.tree.Version > 1 && path.Base(c.To) == "packages.yaml" {
			data, err = b.packagesForUsers(data)
		}
		if err == nil {
			err = b.cell.files.write(c.To, data, 0o644)
		}
		if err != nil {
			return fmt.Errorf("write the configuration for users: %w", err)
		}
	}
	if b.tree.Version > 1 {
		return nil
	}
	return b.writeCompilers("store/config/compilers.yaml", b.tree.Config.Compilers, true)
}
