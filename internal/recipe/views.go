package recipe

import (
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/yamlpos"
)

// prefixVariables are the search paths that views can add directories to.
var prefixVariables = []string{
	"ACLOCAL_PATH", "CMAKE_PREFIX_PATH", "CPATH", "LD_LIBRARY_PATH", "LIBRARY_PATH",
	"MANPATH", "MODULEPATH", "PATH", "PKG_CONFIG_PATH", "PYTHONPATH",
}

// IsPrefixVariable reports whether a variable is a search path: a list of
// directories that views add to rather than set.
func IsPrefixVariable(name string) bool { return slices.Contains(prefixVariables, name) }

func (l *loader) view(key, n *yamlpos.Node) View {
	uenv := n.Get("uenv")
	v := View{
		Name: key.Text(), Node: key, Link: "roots", AddCompilers: uenv.Get("add_compilers").Bool(true),
		Select: n.Get("select").Texts(), HasSelect: n.Get("select") != nil,
		Exclude: n.Get("exclude").Texts(), HasExclude: n.Get("exclude") != nil,
		PrefixPaths: prefixPaths(uenv.Get("prefix_paths")),
	}
	if s, ok := n.Get("link").Str(); ok {
		v.Link = s
	}
	if p := n.Get("projections"); p != nil {
		v.Projections, _ = p.Data().(*yamlpos.Map)
	}
	if l.recipe.Version > 1 {
		v.EnvVars = l.envVars(uenv.Get("env_vars"))
	}
	return v
}

func prefixPaths(n *yamlpos.Node) []PrefixPath {
	var list []PrefixPath
	for _, p := range yamlpos.Pairs(n) {
		list = append(list, PrefixPath{Variable: p.Key.Text(), Dirs: p.Value.Texts()})
	}
	return list
}

// envVars reads and checks the variables that a view changes.
func (l *loader) envVars(n *yamlpos.Node) EnvVars {
	var vars EnvVars
	for _, change := range []struct {
		key  string
		list *[]EnvVar
	}{{"set", &vars.Set}, {"prepend_path", &vars.PrependPath}, {"append_path", &vars.AppendPath}} {
		for _, item := range yamlpos.Items(n.Get(change.key)) {
			for _, p := range item.Pairs {
				v := EnvVar{Name: p.Key.Text(), Value: p.Value.OptionalText()}
				*change.list = append(*change.list, v)
				l.checkEnvVar(change.key, p, v)
			}
		}
	}
	return vars
}

var substitution = regexp.MustCompile(`\$@(\w+)@`)

func (l *loader) checkEnvVar(change string, p yamlpos.Pair, v EnvVar) {
	switch isPrefix := IsPrefixVariable(v.Name); {
	case change == "set" && isPrefix && v.Value != nil:
		l.Fail(p.Key, "use prepend_path or append_path; null empties it", "%s is a search path and cannot be set", v.Name)
	case change != "set" && !isPrefix:
		l.Fail(p.Key, suggest(v.Name, prefixVariables), "%s is not a known search path", v.Name)
	}
	if v.Value == nil {
		return
	}
	known := []string{"mount", "view_name", "view_path"}
	for _, m := range substitution.FindAllStringSubmatch(*v.Value, -1) {
		if !slices.Contains(known, m[1]) {
			l.Fail(p.Value, suggest(m[1], known), "'%s' cannot be expanded", m[0])
		}
	}
	if i := strings.LastIndex(*v.Value, "${@"); i >= 0 && !strings.Contains((*v.Value)[i+3:], "@}") {
		l.Warn(p.Value, "open-variable", "write ${@NAME@}", "'${@' without '@}': some clients read beyond the end of the text")
	}
}

var specName = regexp.MustCompile(`^[A-Za-z0-9_][\w-]*(?:\.[A-Za-z_][\w-]*)*`)

// rootNames returns the packages that an environment lists, nil if the cluster
// adds more: specs for an MPI for which the recipe gives none.
func rootNames(e Environment) map[string]bool {
	if e.Network.MPI != "" && len(e.Network.Specs) == 0 {
		return nil
	}
	roots := map[string]bool{specName.FindString(e.Network.MPI): true}
	for _, list := range [][]string{e.Specs, e.Network.Specs} {
		for _, spec := range list {
			roots[specName.FindString(spec)] = true
		}
	}
	if e.MPI != nil {
		roots[specName.FindString(e.MPI.Spec)] = true
	}
	return roots
}

// checkRoots warns if a view of the roots selects or excludes a package that is
// none: with `link: roots` only what the environment lists can be linked.
func (l *loader) checkRoots(environment string, roots func() map[string]bool, v View, n *yamlpos.Node) {
	if v.Link != "roots" {
		return
	}
	for _, key := range []string{"select", "exclude"} {
		for _, item := range yamlpos.Items(n.Get(key)) {
			if name := specName.FindString(item.Text()); name != "" && roots() != nil && !roots()[name] {
				l.Warn(item, "view-spec", "only 'link: all' or 'link: run' link more than what is listed in 'specs'",
					"view '%s': '%s' is not among the specs of environment '%s'", v.Name, name, environment)
			}
		}
	}
}

// checkViewNames reports names that several views have: users choose a view by
// its name alone.
func (l *loader) checkViewNames() {
	first := map[string]*yamlpos.Node{}
	for _, e := range l.recipe.Environments {
		for _, v := range e.Views {
			if before, ok := first[v.Name]; ok {
				l.Fail(v.Node, "view names are unique over all environments",
					"the view '%s' is defined more than once: also at %d:%d", v.Name, before.Line, before.Column)
				continue
			}
			first[v.Name] = v.Node
		}
	}
}

// checkAddedViews warns of views that give way to those of the same name that are added
// to the image.
func (l *loader) checkAddedViews() {
	for _, e := range l.recipe.Environments {
		for _, v := range e.Views {
			if v.Name == "spack" || v.Name == "modules" && l.recipe.Modules {
				l.Warn(v.Node, "view-replaced", "give it another name", "the view '%s' is replaced by the one of this name that the image gets anyway", v.Name)
			}
		}
	}
}

// checkDefaultView reports a default view that does not exist.
func (l *loader) checkDefaultView() {
	name, given := l.config.Get("default-view").Str()
	if !given || l.recipe.Version == 1 {
		return
	}
	var names []string
	for _, e := range l.recipe.Environments {
		for _, v := range e.Views {
			names = append(names, v.Name)
		}
	}
	if l.recipe.Builder == BuilderSpack {
		names = append(names, "spack")
		if l.recipe.Modules {
			names = append(names, "modules")
		}
	}
	if !slices.Contains(names, name) && l.environmentsRead() {
		l.Fail(l.config.Get("default-view"), suggest(name, names), "the default view '%s' is not a view of environments.yaml", name)
	}
}

// environmentsRead reports whether the views are known, so that a missing one is
// not the consequence of a worse error.
func (l *loader) environmentsRead() bool {
	return l.environments != nil || l.recipe.Builder == BuilderScript
}
