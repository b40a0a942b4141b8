package stack

import (
	"errors"
	"path"
	"path/filepath"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
)

// hooks renders the programs of the recipe that run before and after the build.
func (r *renderer) hooks() {
	r.tree.Hooks.PreInstall = r.hook("pre-install", r.recipe.PreInstall)
	r.tree.Hooks.PostInstall = r.hook("post-install", r.recipe.PostInstall)
	if r.recipe.Build != nil {
		// It runs from the copy of the recipe, beside the files it needs, and is
		// no template.
		r.tree.Hooks.Build = "store/meta/recipe/" + filepath.Base(r.recipe.Build.Path)
	}
}

func (r *renderer) hook(name string, hook *recipe.Hook) string {
	if hook == nil {
		return ""
	}
	build := r.tree.BuildDir
	text, err := hook.Render(map[string]string{
		"mount": r.mount, "config": path.Join(r.mount, "config"), "build": build, "spack": filepath.Join(build, "spack"),
	})
	var problems fault.Problems
	if errors.As(err, &problems) {
		r.Add(problems...)
	}
	file := "store/" + name + "-hook"
	r.tree.Files = append(r.tree.Files, File{Path: file, Mode: 0o755, Data: []byte(text)})
	return file
}
