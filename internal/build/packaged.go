package build

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// From format 2 on compilers are packages: one that was built is found by later
// environments as a package of the system, in their packages.yaml.

// external returns the entry of a compiler among the externals of its package.
func (c compiler) external() *yamlpos.Map {
	paths, languages := c.paths(), &yamlpos.Map{}
	for _, l := range []struct{ language, role string }{{"c", "cc"}, {"cxx", "cxx"}, {"fortran", "fc"}} {
		if program, ok := paths[l.role]; ok {
			languages.Set(l.language, program)
		}
	}
	return yamlpos.NewMap("spec", c.name+"@"+c.version, "prefix", c.prefix,
		"extra_attributes", yamlpos.NewMap("compilers", languages))
}

// addCompilers adds those of the named compilers to a set of packages that the
// configuration of all environments does not have.
func (b *spackBuild) addCompilers(packages *yamlpos.Map, named []stack.Compiler) error {
	for _, name := range named {
		c, err := b.compilers.get(name)
		if err != nil {
			return err
		}
		if c.cluster {
			continue
		}
		value, _ := packages.Get(c.name)
		entry, ok := value.(*yamlpos.Map)
		if !ok {
			entry = &yamlpos.Map{}
			packages.Set(c.name, entry)
		}
		known, _ := entry.Get("externals")
		externals, _ := known.([]any)
		entry.Set("externals", append(slices.Clone(externals), c.external()))
	}
	return nil
}

// writePackages writes the packages.yaml of an environment: the compilers that it is
// built with, and the packages of the system that Spack should find.
func (b *spackBuild) writePackages(ctx context.Context, env environment) error {
	file := path.Join(env.Dir, "packages.yaml")
	if slices.ContainsFunc(b.tree.Files, func(f stack.File) bool { return f.Path == file }) {
		return nil // it is part of the tree
	}
	packages := &yamlpos.Map{}
	if b.tree.Version > 1 {
		if err := b.addCompilers(packages, env.BuiltWith); err != nil {
			return err
		}
	}
	if err := b.writeYAML(file, yamlpos.NewMap("packages", packages)); err != nil {
		return err
	}
	return b.findExternals(ctx, env)
}

// packagesForUsers is the packages.yaml of the image: that of the build, with the
// compilers of the recipe.
func (b *spackBuild) packagesForUsers(text []byte) ([]byte, error) {
	node, err := yamlpos.Parse("packages.yaml", text)
	if err != nil {
		return nil, err
	}
	document, _ := node.Data().(*yamlpos.Map)
	value, _ := document.Get("packages")
	packages, ok := value.(*yamlpos.Map)
	if !ok {
		packages = &yamlpos.Map{}
	}
	if err := b.addCompilers(packages, b.tree.Config.Compilers); err != nil {
		return nil, err
	}
	return yamlpos.Marshal(yamlpos.NewMap("packages", packages), yamlpos.MarshalOptions{SortKeys: true})
}

// groupCompilers notes the compilers that groups of specs have built, as far as they
// are still installed: format 3 can remove them.
func (b *spackBuild) groupCompilers() error {
	var groups []stack.Group
	for _, env := range b.environments {
		groups = append(groups, env.Groups...)
	}
	if len(groups) == 0 {
		return nil
	}
	installed, err := b.database()
	if err != nil {
		return err
	}
	for _, g := range groups {
		i := slices.IndexFunc(installed, func(s spack.Spec) bool {
			_, version, _ := cutSpec(g.Specs[0])
			return s.Name == g.Name && satisfies(s.Version, version) && !s.External
		})
		if _, compiler := executables[g.Name]; !compiler || i < 0 {
			continue
		}
		s := installed[i]
		c, err := b.compilers.describe(s.Name, s.Version, s.Prefix, b.programBelow(s.Prefix))
		if err != nil {
			return fmt.Errorf("find the compilers of %s: %w", g.Name, err)
		}
		b.compilers.built = append(b.compilers.built, builtCompiler{g.Name, s.Name, s.Hash, c})
	}
	return nil
}

// cleanUp uninstalls what the recipe says that users do not need: format 3.
func (b *spackBuild) cleanUp(ctx context.Context) error {
	if b.tree.Cleanup == "none" {
		return nil
	}
	args := []string{"gc", "--yes-to-all"}
	if b.tree.Cleanup == "build" {
		args = append(args, "--keep-build-dependencies")
		for _, env := range b.compilerEnvironments {
			// Before Spack has groups nothing there says that these are needed.
			args = append(args, "--except-environment", b.cell.inside(env.Dir))
		}
	}
	for _, env := range b.environments {
		args = append(args, "--except-environment", b.cell.inside(env.Dir))
	}
	return b.stage("cleanup", func() error {
		if err := b.run(ctx, step{name: "cleanup"}, args...); err != nil {
			return err
		}
		installed, err := b.installed()
		if err != nil {
			return err
		}
		maps.DeleteFunc(b.specs, func(hash string, s spack.Spec) bool { return !s.External && !installed[hash] })
		b.compilers.built = slices.DeleteFunc(b.compilers.built, func(c builtCompiler) bool {
			return c.hash != "" && !installed[c.hash]
		})
		return nil
	})
}
