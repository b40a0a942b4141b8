package build

import (
	"context"
	"path"
	"path/filepath"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
)

// buildScript runs the recipe's own program, which installs into the mount point.
func (j *job) buildScript(ctx context.Context) error {
	if j.tree.Hooks.Build == "" {
		return fault.New(fault.Invalid, "the recipe %s has no program 'build'", j.Stack.Recipe.Dir)
	}
	source, err := j.protectRecipe()
	if err != nil {
		return err
	}
	j.cell.env = append(j.cell.env, "UENV_SOURCE="+source)
	build := proc.Cmd{Path: filepath.Join(source, path.Base(j.tree.Hooks.Build)), Dir: source}
	err = j.stage("build", func() error {
		return j.program(ctx, step{name: "build", cmd: build})
	})
	if err != nil {
		return err
	}
	return j.stage("metadata", func() error {
		for _, env := range j.tree.Environments {
			for _, v := range env.Views {
				j.views[v.Name] = meta.SpackView(v.Root, v.Description, v.Variables)
			}
		}
		return j.writeEnv()
	})
}

// protectRecipe makes the copy of the recipe that goes into the image the source
// of the build, read-only in the sandbox under all its names, and returns its path.
func (j *job) protectRecipe() (string, error) {
	copied := j.cell.path("store/meta/recipe")
	if j.cell.spec != nil {
		for _, target := range []string{j.cell.inside("store/meta/recipe"), filepath.Join(j.cell.mount, "meta/recipe")} {
			j.cell.spec.Binds = append(j.cell.spec.Binds, sandbox.Bind{Source: copied, Target: target})
		}
	}
	return j.cell.put(copied, "recipe")
}

// command returns the command that runs a file of the build tree as programs see it.
func (j *job) command(file string) proc.Cmd {
	rest, err := filepath.Rel("store", file)
	if err != nil {
		return proc.Cmd{Path: j.cell.inside(file)}
	}
	return proc.Cmd{Path: filepath.Join(j.cell.mount, rest), Dir: j.cell.mount}
}
