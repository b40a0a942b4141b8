package build

import (
	"context"
	"path"
	"strings"

	"uenv-ci.dev/internal/stack"
)

// buildAll builds environments in turn. Those whose compilers are known are all
// concretized before anything of them is built, so that what is wrong or missing is
// told at once.
func (b *spackBuild) buildAll(ctx context.Context, rest []environment) error {
	for len(rest) > 0 {
		var ready []environment
		// The first goes ahead in any case: if its compilers are not known, it fails.
		for first := true; len(rest) > 0 && (first || b.compilers.knows(rest[0].BuiltWith)); first = false {
			env := rest[0]
			rest = rest[1:]
			if env.Kind == stack.KindCompiler && b.systemHas(&env) {
				continue
			}
			ready = append(ready, env)
		}
		for _, env := range ready {
			if err := b.concretize(ctx, env); err != nil {
				return err
			}
		}
		if b.AirGapped {
			if err := b.stage("sources", func() error { return b.missingSources(ctx, ready, rest) }); err != nil {
				return err
			}
		}
		for _, env := range ready {
			if err := b.build(ctx, env); err != nil {
				return err
			}
		}
	}
	return nil
}

// systemHas tells whether an environment builds nothing, as its compilers are those
// of the system.
func (b *spackBuild) systemHas(env *environment) bool {
	// The upstream tool builds its own mksquashfs here; we pack ourselves.
	env.dropSpecs("squashfs")
	if !b.allExternal(*env) {
		return false
	}
	b.Events.Info("compilers", "%s: %s of the system", env.Name, strings.Join(env.Specs, ", "))
	return true
}

// concretize writes the files that an environment includes, and lets Spack decide
// what it consists of.
func (b *spackBuild) concretize(ctx context.Context, env environment) error {
	return b.stageTries("concretize "+env.Name, twice, func() error {
		if err := b.writeYAML(path.Join(env.Dir, "spack.yaml"), env.document); err != nil {
			return err
		}
		if err := b.writeIncludes(ctx, env); err != nil {
			return err
		}
		if err := b.run(ctx, step{name: "concretize-" + env.Name, network: !b.Offline}, "-e", b.cell.inside(env.Dir), "concretize", "-f"); err != nil {
			return err
		}
		lock, err := b.readLock(env)
		if err != nil {
			return err
		}
		for hash, spec := range lock.Specs {
			b.specs[hash] = spec
		}
		b.Events.Info("concretize "+env.Name, "%d packages", len(lock.Specs))
		return nil
	})
}

// build installs an environment. Its views are completed with those of all others.
func (b *spackBuild) build(ctx context.Context, env environment) error {
	defer b.saveSources()
	b.fetchEnvironment(ctx, env)
	stage := "install " + env.Name
	if err := b.stageTries(stage, twice, func() error { return b.installPackages(ctx, stage, env) }); err != nil {
		return err
	}
	if env.Kind == stack.KindCompiler {
		b.compilerEnvironments = append(b.compilerEnvironments, env)
		return b.stage("find "+env.Name, func() error { return b.findCompilers(env) })
	}
	b.environments = append(b.environments, env)
	return nil
}
