package stack

import (
	"path"
	"regexp"
	"slices"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

// prefixVariables are the variables that hold lists of paths.
var prefixVariables = []string{
	"ACLOCAL_PATH", "CMAKE_PREFIX_PATH", "CPATH", "LD_LIBRARY_PATH", "LIBRARY_PATH",
	"MANPATH", "MODULEPATH", "PATH", "PKG_CONFIG_PATH", "PYTHONPATH",
}

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
	add := func(name, op string, value ...string) {
		vars.List[name] = append(vars.List[name], meta.ListOp{Op: op, Value: value})
	}
	for _, e := range v.EnvVars.Set {
		value := r.expand(v, "set", e)
		switch {
		case !slices.Contains(prefixVariables, e.Name):
			vars.Scalar[e.Name] = value
		case value == nil:
			add(e.Name, meta.OpSet)
		default:
			r.fail(envVarNode(v, "set", e.Name), "use prepend_path or append_path, or null to empty it",
				`in view "%s": %s is a prefix variable`, v.Name, e.Name)
		}
	}
	for _, change := range []struct {
		key, op string
		vars    []recipe.EnvVar
	}{{"prepend_path", meta.OpPrepend, v.EnvVars.PrependPath}, {"append_path", meta.OpAppend, v.EnvVars.AppendPath}} {
		for _, e := range change.vars {
			if !slices.Contains(prefixVariables, e.Name) {
				r.fail(envVarNode(v, change.key, e.Name), didYouMean(e.Name, prefixVariables),
					`in view "%s": %s is not a known prefix path variable`, v.Name, e.Name)
			} else if value := r.expand(v, change.key, e); value != nil {
				add(e.Name, change.op, normalPath(*value))
			}
		}
	}
	return vars
}

var substitution = regexp.MustCompile(`\$@(\w+)@`)

// expand replaces $@mount@, $@view_name@ and $@view_path@ in a value. ${@X@} is
// for the client, which expands it when the view is loaded.
func (r *renderer) expand(v recipe.View, key string, e recipe.EnvVar) *string {
	if e.Value == nil {
		return nil
	}
	known := map[string]string{"mount": r.mount, "view_name": v.Name, "view_path": r.viewRoot(v.Name)}
	expanded := substitution.ReplaceAllStringFunc(*e.Value, func(s string) string {
		value, ok := known[s[2:len(s)-1]]
		if !ok {
			r.fail(envVarNode(v, key, e.Name), "known are $@mount@, $@view_name@ and $@view_path@",
				`in view "%s": "%s" variable cannot be expanded`, v.Name, s)
		}
		return value
	})
	return &expanded
}

// envVarNode finds where a recipe says something of a variable.
func envVarNode(v recipe.View, key, name string) *yamlpos.Node {
	changes := v.Node.Get("uenv").Get("env_vars").Get(key)
	if changes != nil {
		for _, item := range changes.Items {
			if node := item.Key(name); node != nil {
				return node
			}
		}
	}
	return v.Node
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

var (
	lineBreaks  = regexp.MustCompile(`[ \t]*\n\s*`)
	quotedQuote = regexp.MustCompile(`''`)
)

// asTemplated is the string that Spack reads where upstream's templates put s
// between single quotes without escaping it: a line break is folded into a
// blank and two quotes become one.
func asTemplated(s string) string {
	s = lineBreaks.ReplaceAllString(s, " ")
	return quotedQuote.ReplaceAllString(s, "'")
}

func templated(items []string) []any {
	values := make([]any, len(items))
	for i, s := range items {
		values[i] = asTemplated(s)
	}
	return values
}
