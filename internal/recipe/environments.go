package recipe

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
)

// toolsEnvironment is the environment that versions 2 and 3 add to the user's.
const toolsEnvironment = "uenv_tools"

// mpisV1 are the MPI libraries that version 1 knows.
var mpisV1 = []string{"cray-mpich", "mpich", "mvapich2", "openmpi"}

// readEnvironments takes over environments.yaml.
func (l *loader) readEnvironments() {
	if l.environments == nil || l.environments.Kind != yamlpos.Mapping {
		return
	}
	if len(l.environments.Pairs) == 0 {
		l.Fail(l.environments, "", "there is no environment")
	}
	for _, p := range l.environments.Pairs {
		if p.Value.Kind == yamlpos.Mapping {
			l.checkAlias(p)
			l.recipe.Environments = append(l.recipe.Environments, l.environment(p.Key, p.Value))
		}
	}
	l.checkEnvironmentNames()
	l.checkViewNames()
}

func (l *loader) environment(key, n *yamlpos.Node) Environment {
	e := Environment{
		Name: key.Text(), Node: n,
		Specs: n.Get("specs").Texts(), Unify: true, Deprecated: n.Get("deprecated").Bool(false),
		Variants: n.Get("variants").Texts(), Packages: n.Get("packages").Texts(),
	}
	if u := n.Get("unify"); u != nil {
		e.Unify = u.Value
	}
	if l.recipe.Version == 1 {
		l.environmentV1(&e, n)
	} else {
		l.environmentV2(&e, key, n)
	}
	specs := e // without its views
	roots := sync.OnceValue(func() map[string]bool { return rootNames(specs) })
	for _, p := range yamlpos.Pairs(n.Get("views")) {
		v := l.view(p.Key, p.Value)
		l.checkRoots(e.Name, roots, v, p.Value)
		e.Views = append(e.Views, v)
	}
	return e
}

func (l *loader) environmentV1(e *Environment, n *yamlpos.Node) {
	for _, item := range yamlpos.Items(n.Get("compiler")) {
		t := Toolchain{Toolchain: item.Get("toolchain").Text(), Spec: item.Get("spec").Text()}
		e.Toolchains = append(e.Toolchains, t)
		l.checkCompiler(item.Get("toolchain"), t.Toolchain)
	}
	mpi := n.Get("mpi")
	spec, ok := mpi.Get("spec").Str()
	gpu := mpi.Get("gpu")
	if outer := n.Get("gpu"); outer != nil {
		l.Warn(n.Key("gpu"), "misplaced-key", "move it below 'mpi'", "'gpu' belongs below 'mpi'")
		if gpu == nil {
			gpu = outer
		}
	}
	if !ok || spec == "" {
		return
	}
	e.MPI = &MPI{Spec: spec, GPU: gpu.Text()}
	name, _, _ := strings.Cut(strings.TrimSpace(spec), "@")
	if !slices.Contains(mpisV1, name) {
		l.Fail(mpi.Get("spec"), suggest(name, mpisV1), "unsupported MPI '%s'", name)
	}
}

func (l *loader) environmentV2(e *Environment, key, n *yamlpos.Node) {
	for _, item := range yamlpos.Items(n.Get("compiler")) {
		name := item.Text()
		e.Compilers = append(e.Compilers, name)
		if slices.Contains(compilerOrder, name) { // else the schema has refused it
			l.checkCompiler(item, name)
		}
	}
	e.Duplicates = "minimal"
	if s, ok := n.Get("duplicates").Get("strategy").Str(); ok {
		e.Duplicates = s
	}
	e.Prefer = n.Get("prefer").Texts()
	l.network(e, n.Get("network"))
	if l.recipe.Version == 3 && len(e.Packages) > 0 {
		l.Warn(n.Key("packages"), "ignored-key", "add external packages to the recipe's packages.yaml instead",
			"environment '%s': 'packages' has no effect in version 3", e.Name)
	}
	if e.Name == toolsEnvironment || l.recipe.Version == 3 && slices.Contains(l.builtCompilers(), e.Name) {
		l.Fail(key, "rename the environment", "the name '%s' is taken by a group of packages that is added to every recipe of this kind", e.Name)
	}
}

func (l *loader) builtCompilers() []string {
	var names []string
	for _, c := range l.recipe.Compilers.V2 {
		if !c.System {
			names = append(names, c.Name)
		}
	}
	return names
}

var mpiName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*`)

func (l *loader) network(e *Environment, n *yamlpos.Node) {
	e.Network = Network{MPI: strings.TrimSpace(n.Get("mpi").Text()), Specs: n.Get("specs").Texts()}
	mpi, given := n.Get("mpi").Str()
	if given && !mpiName.MatchString(e.Network.MPI) {
		l.Fail(n.Get("mpi"), "write for instance cray-mpich@9.0, or null", "'%s' is not a valid MPI spec", mpi)
	}
	if !given && len(e.Network.Specs) > 0 {
		l.Warn(n.Key("specs"), "network-specs", "name the MPI they belong to, or move them to 'specs'",
			"environment '%s': 'network: specs' has no effect without 'network: mpi'", e.Name)
	}
}

// checkCompiler reports a listed compiler that compilers.yaml does not define.
func (l *loader) checkCompiler(at *yamlpos.Node, name string) {
	groups := l.compilerGroups()
	if name != "" && l.compilers != nil && !slices.Contains(groups, name) {
		l.Fail(at, suggest(name, groups), "the compiler '%s' is not defined in compilers.yaml", name)
	}
}

// suggest returns a hint that names the candidate most like word, else all.
func suggest(word string, candidates []string) string {
	if hint := schema.Suggest(word, candidates); hint != "" || len(candidates) == 0 {
		return hint
	}
	return "there is " + strings.Join(candidates, ", ")
}

// checkAlias reports an environment that is an alias of one before: from version
// 2 on stackinator does not read those.
func (l *loader) checkAlias(p yamlpos.Pair) {
	for _, e := range l.recipe.Environments {
		if e.Node == p.Value && l.recipe.Version > 1 {
			l.Fail(p.Key, "use a merge key: '<<: *NAME'", "the environment '%s' is an alias of '%s'", p.Key.Text(), e.Name)
			return
		}
	}
}

// checkEnvironmentNames reports environments of version 1 that have the name
// made up for a further view of another: Spack 0.2x knows one view each.
func (l *loader) checkEnvironmentNames() {
	if l.recipe.Version != 1 {
		return
	}
	keys := map[string]*yamlpos.Node{}
	for _, p := range l.environments.Pairs {
		keys[p.Key.Raw] = p.Key
	}
	for _, e := range l.recipe.Environments {
		for i := 2; i <= len(e.Views); i++ {
			clone := fmt.Sprintf("%s-%d__", e.Name, i)
			if at := keys[clone]; at != nil {
				l.Fail(at, "rename one of them", "the name '%s' is taken by the environment made for view %d of '%s'", clone, i, e.Name)
			}
		}
	}
}
