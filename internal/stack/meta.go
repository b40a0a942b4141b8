package stack

import (
	"cmp"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/yamlpos"
)

// What upstream records of the moment and the machine, as constants: an image
// depends on its inputs only, and the rest is in the provenance document. The
// time is that of SOURCE_DATE_EPOCH during the build.
const (
	constantTime = "19800101 12:01:00"
	constantText = "unknown"
)

// meta writes the documents of store/meta and copies the recipe beside them.
func (r *renderer) meta() {
	r.json("store/meta/configure.json", r.configureJSON())
	r.json("store/meta/env.json.in", r.envJSON())
	r.tree.Copies = append(r.tree.Copies, Copy{
		From: r.recipe.Dir, To: "store/meta/recipe", Exclude: []string{".git"}, Secrets: r.secretURLs(),
	})
	switch {
	case r.recipe.Extra != "":
		r.tree.Copies = append(r.tree.Copies, Copy{From: r.recipe.Extra, To: "store/meta/extra", Within: r.recipe.Dir})
	case r.recipe.Version == 3:
		r.tree.Dirs = append(r.tree.Dirs, "store/meta/extra")
	}
}

func (r *renderer) json(name string, document *yamlpos.Map) {
	if r.dry {
		return
	}
	data, err := yamlpos.MarshalJSON(document.Sorted(), 2)
	if err != nil && r.err == nil {
		r.err = err
	}
	r.file(name, data)
}

// configureJSON says what was configured, for people and for tools that know
// stackinator's file.
func (r *renderer) configureJSON() *yamlpos.Map {
	host := &yamlpos.Map{}
	for _, key := range []string{"machine", "node", "processor", "release", "system", "version"} {
		host.Set(key, constantText)
	}
	document := yamlpos.NewMap(
		"time", constantTime,
		"host", host,
		"cluster", cmp.Or(r.in.System, constantText),
		"stackinator", yamlpos.NewMap("version", constantText, "args", []any{}, "python", constantText),
		"mount", r.mount,
	)
	if r.recipe.Spack.Block != nil {
		document.Set("spack", public(r.recipe.Spack.Block))
	}
	return document
}

// envJSON is the part of meta/env.json that is known before the build.
func (r *renderer) envJSON() *yamlpos.Map {
	document := yamlpos.NewMap("name", r.recipe.Name, "description", nil, "mount", r.mount, "modules", nil)
	if r.recipe.HasDescription {
		document.Set("description", r.recipe.Description)
	}
	if r.tree.Modules.Root != "" {
		document.Set("modules", yamlpos.NewMap("root", r.tree.Modules.Root))
	}
	views := &yamlpos.Map{}
	for _, env := range r.tree.Environments {
		for _, v := range env.Views {
			view := yamlpos.NewMap("root", v.Root, "description", v.Description)
			if r.recipe.Version == 1 {
				view.Set("activate", v.Root+"/activate.sh")
			} else {
				view.Set("recipe_variables", variablesJSON(v.Variables))
			}
			views.Set(v.Name, view)
		}
	}
	document.Set("views", views)
	if r.recipe.Version != 1 {
		document.Set("default-view", nil)
		if r.recipe.DefaultView != "" {
			document.Set("default-view", r.recipe.DefaultView)
		}
	}
	return document
}

func variablesJSON(vars meta.Variables) *yamlpos.Map {
	lists, scalars := &yamlpos.Map{}, &yamlpos.Map{}
	for name, ops := range vars.List {
		items := make([]any, len(ops))
		for i, op := range ops {
			items[i] = yamlpos.NewMap("op", op.Op, "value", list(op.Value))
		}
		lists.Set(name, items)
	}
	for name, value := range vars.Scalar {
		if value == nil {
			scalars.Set(name, nil)
		} else {
			scalars.Set(name, *value)
		}
	}
	return yamlpos.NewMap("list", lists, "scalar", scalars)
}
