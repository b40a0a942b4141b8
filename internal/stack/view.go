package stack

import (
	"path"
	"regexp"
	"strings"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

func (r *renderer) viewRoot(name string) string { return path.Join(r.mount, "env", name) }

// view describes one view of an environment to the build engine.
func (r *renderer) view(v recipe.View, spackName string, compilers []Compiler) View {
	return View{
		Name:         v.Name,
		SpackName:    spackName,
		Root:         r.viewRoot(v.Name),
		AddCompilers: v.AddCompilers,
		Compilers:    compilers,
		PrefixPaths:  v.PrefixPaths,
		Variables:    r.variables(v),
	}
}

// viewConfig is what Spack is told about a view. Version 3 leaves out empty
// lists, the others write whatever the recipe has.
func (r *renderer) viewConfig(v recipe.View) *yamlpos.Map {
	config := yamlpos.NewMap("root", r.viewRoot(v.Name))
	if r.recipe.Version == 3 {
		if len(v.Exclude) > 0 {
			config.Set("exclude", templated(v.Exclude))
		}
		if len(v.Select) > 0 {
			config.Set("select", templated(v.Select))
		}
		if v.Projections.Len() > 0 {
			config.Set("projections", v.Projections)
		}
		return config
	}
	config.Set("link", v.Link)
	if v.HasExclude {
		config.Set("exclude", list(v.Exclude))
	}
	if v.HasSelect {
		config.Set("select", list(v.Select))
	}
	if v.Projections != nil {
		config.Set("projections", v.Projections)
	}
	return config
}

// variables are the changes that a recipe makes to the environment of a view:
// first everything set, then prepended, then appended.
func (r *renderer) variables(v recipe.View) meta.Variables {
	vars := meta.Variables{List: map[string][]meta.ListOp{}, Scalar: map[string]*string{}}
	expand := r.expander(v)
	for _, e := range v.EnvVars.Set {
		if recipe.IsPrefixVariable(e.Name) { // can only be emptied
			vars.List[e.Name] = append(vars.List[e.Name], meta.ListOp{Op: meta.OpSet})
		} else {
			vars.Scalar[e.Name] = expand(e.Value)
		}
	}
	add := func(op string, changes []recipe.EnvVar) {
		for _, e := range changes {
			if value := expand(e.Value); value != nil {
				vars.List[e.Name] = append(vars.List[e.Name], meta.ListOp{Op: op, Value: []string{normalPath(*value)}})
			}
		}
	}
	add(meta.OpPrepend, v.EnvVars.PrependPath)
	add(meta.OpAppend, v.EnvVars.AppendPath)
	return vars
}

// expander replaces $@mount@, $@view_name@ and $@view_path@ in values; a recipe
// with others does not load. ${@X@} is for the client, which expands it when the
// view is loaded.
func (r *renderer) expander(v recipe.View) func(*string) *string {
	replacer := strings.NewReplacer("$@mount@", r.mount, "$@view_name@", v.Name, "$@view_path@", r.viewRoot(v.Name))
	return func(value *string) *string {
		if value == nil {
			return nil
		}
		expanded := replacer.Replace(*value)
		return &expanded
	}
}

// normalPath cleans a path as Python's normpath does, which keeps two leading slashes.
func normalPath(p string) string {
	clean := path.Clean(p)
	if len(p) > 1 && p[:2] == "//" && (len(p) == 2 || p[2] != '/') {
		return "/" + clean
	}
	return clean
}

// scriptView is a view of a script build: the whole store, with directories of
// it in front of variables.
func (r *renderer) scriptView(v recipe.View) View {
	view := View{Name: v.Name, Root: r.mount, Description: v.Description, PrefixPaths: v.PrefixPaths, Variables: r.variables(v)}
	for _, p := range v.Paths {
		dirs := make([]string, len(p.Dirs))
		for i, d := range p.Dirs {
			dirs[i] = path.Join(r.mount, d)
		}
		view.Variables.List[p.Variable] = append(view.Variables.List[p.Variable], meta.ListOp{Op: meta.OpPrepend, Value: dirs})
	}
	return view
}

// list converts strings to a YAML list.
func list(items []string) []any {
	values := make([]any, len(items))
	for i, s := range items {
		values[i] = s
	}
	return values
}

var lineBreaks = regexp.MustCompile(`[ \t]*\n\s*`)

// asTemplated is the string that Spack reads where upstream's templates put s
// between single quotes without escaping it: lines are folded, a single break
// into a blank, and two quotes become one.
func asTemplated(s string) string {
	if strings.Contains(s, "\n") { // hardly ever, and every spec passes here
		s = lineBreaks.ReplaceAllStringFunc(s, func(breaks string) string {
			if n := strings.Count(breaks, "\n"); n > 1 {
				return strings.Repeat("\n", n-1)
			}
			return " "
		})
	}
	return strings.ReplaceAll(s, "''", "'")
}

func templated(items []string) []any {
	values := make([]any, len(items))
	for i, s := range items {
		values[i] = asTemplated(s)
	}
	return values
}
