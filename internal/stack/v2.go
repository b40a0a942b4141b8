package stack

import (
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

// ToolsEnvironment is the environment, or in version 3 the group, that builds
// squashfs, which upstream packs the image with.
const ToolsEnvironment = "uenv_tools"

func (r *renderer) renderV2() {
	r.guessVersion()
	r.spackClone()
	r.mirrorsV2()
	config := r.spackConfig()
	if r.version.atLeast(1, 2) {
		config.Set("installer", "old") // the flow relies on it
	}
	if config.Len() > 0 {
		r.yaml("config/config.yaml", yamlpos.NewMap("config", config))
	}
	r.packagesV2()
	r.reposV2()
	compilers := r.compilersV2()
	r.environmentsV2(compilers)
	all := make([]Compiler, 0, len(compilers))
	for _, c := range r.recipe.Compilers.V2 {
		all = append(all, compilers[c.Name])
	}
	r.modulesV2(all)
	r.userConfig("config/packages.yaml", all)
}

// packagesV2 writes the packages of every environment, and those that gcc is
// built with: the cluster's gcc is seen only there.
func (r *renderer) packagesV2() {
	cluster := overlay(nil, r.clusterLayer())
	if _, ok := cluster.Get("gcc"); !ok {
		r.failNoGCC()
		return
	}
	r.reportReplaced(r.clusterLayer(), r.networkLayer(), r.recipeLayer())
	global := overlay(without(cluster, "gcc"), r.networkLayer(), r.recipeLayer())
	r.file("config/packages.yaml", r.marshal(packagesFile(global), true))
	forGCC := overlay(cluster, r.recipeLayer())
	r.file("compilers/gcc/packages.yaml", r.marshal(packagesFile(forGCC), true))
}

func (r *renderer) failNoGCC() {
	at := &yamlpos.Node{File: r.clusterFile("packages.yaml")}
	r.Fail(at, "add the system compiler as an external of 'gcc'", "the system packages.yaml file does not provide gcc")
}

// compilersV2 writes one environment per compiler: the cluster's gcc builds gcc,
// which builds the others. It returns the compilers by name.
func (r *renderer) compilersV2() map[string]Compiler {
	suffixes := map[string]string{
		"gcc": " + bootstrap", "nvhpc": " ~mpi~blas~lapack", "llvm": " +clang ~gold",
	}
	compilers := map[string]Compiler{}
	for _, c := range r.recipe.Compilers.V2 {
		env := SpackEnvironment{
			Name: c.Name, Dir: "compilers/" + c.Name, Kind: KindCompiler, CacheExclude: cacheExclude,
			Specs: []string{c.Name + "@" + c.Version + suffixes[c.Name]}, Include: []string{"packages.yaml", "config.yaml"},
		}
		var packages *yamlpos.Map
		if c.Name == "gcc" {
			env.CacheExclude = nil
			packages = yamlpos.NewMap("gcc", yamlpos.NewMap("variants", []any{"build_type=Release +bootstrap +profiled +strip ~binutils"}))
		} else if gcc, ok := compilers["gcc"]; ok {
			env.BuiltWith = []Compiler{gcc}
		}
		compilers[c.Name] = Compiler{Package: c.Name, Environment: c.Name}
		r.tree.Environments = append(r.tree.Environments, env)
		r.yaml(env.Dir+"/spack.yaml", compilerEnvironment(env, "when_possible", packages))
	}
	return compilers
}

func (r *renderer) environmentsV2(compilers map[string]Compiler) {
	networks := r.networks()
	for i, env := range r.recipe.Environments {
		r.environmentV2(env, networks[i], compilers)
	}
	r.environmentV2(toolsRecipe(), network{}, compilers)
}

// toolsRecipe is the environment that upstream adds to every recipe.
func toolsRecipe() recipe.Environment {
	return recipe.Environment{Name: ToolsEnvironment, Compilers: []string{"gcc"}, Specs: []string{"squashfs"}, Unify: true, Duplicates: "minimal"}
}

func (r *renderer) environmentV2(env recipe.Environment, net network, compilers map[string]Compiler) {
	r.environmentWith(env, net, compilersOf(env, compilers), func(name string) string { return name })
}

// environmentWith writes an environment that its compilers are built before.
// compilerSpec says how one is named where it is preferred.
func (r *renderer) environmentWith(env recipe.Environment, net network, used []Compiler, compilerSpec func(name string) string) {
	spackEnv := SpackEnvironment{
		Name: env.Name, Dir: "environments/" + env.Name, Kind: KindEnvironment,
		Specs: slices.Concat(env.Specs, net.specs), Include: []string{"packages.yaml", "config.yaml"}, BuiltWith: used,
		ExternalFind: env.Packages, NotBuildable: true, CacheExclude: cacheExclude, CacheExcludeGit: true,
	}
	var views any = false
	if len(env.Views) > 0 {
		configs := &yamlpos.Map{}
		for _, v := range env.Views {
			spackEnv.Views = append(spackEnv.Views, r.view(v, v.Name, used))
			configs.Set(v.Name, r.viewConfig(v))
		}
		views = configs
	}
	r.tree.Environments = append(r.tree.Environments, spackEnv)

	spack := yamlpos.NewMap(
		"include", list(spackEnv.Include),
		"config", yamlpos.NewMap("deprecated", env.Deprecated),
		"concretizer", yamlpos.NewMap("unify", env.Unify, "reuse", false,
			"duplicates", yamlpos.NewMap("strategy", env.Duplicates)),
		"specs", templated(spackEnv.Specs),
	)
	if packages := r.preferences(env, net, compilerSpec); packages.Len() > 0 {
		spack.Set("packages", packages)
	}
	spack.Set("view", views)
	r.yaml(spackEnv.Dir+"/spack.yaml", yamlpos.NewMap("spack", spack))
}

// compilersOf picks the compilers of an environment from those of the recipe.
func compilersOf(env recipe.Environment, compilers map[string]Compiler) []Compiler {
	used := make([]Compiler, len(env.Compilers))
	for i, name := range env.Compilers {
		used[i] = compilers[name]
	}
	return used
}

// preferences is the `packages` section of an environment of versions 2 and 3:
// its compiler, its variants and its MPI. Without preferences of the recipe the
// first compiler, as written by compilerSpec, is preferred for all languages.
func (r *renderer) preferences(env recipe.Environment, net network, compilerSpec func(name string) string) *yamlpos.Map {
	all := &yamlpos.Map{}
	prefer := env.Prefer
	switch {
	case prefer != nil || len(env.Compilers) == 0:
	case r.oldSpack():
		var specs []string
		for _, name := range env.Compilers {
			specs = append(specs, oldCompilerName(compilerSpec(name)))
		}
		all.Set("compiler", templated(specs))
	default:
		spec := compilerSpec(env.Compilers[0])
		if rest, ok := strings.CutPrefix(spec, "intel-oneapi-compilers"); ok {
			spec = "oneapi" + rest // the compiler's name differs from its package's
		}
		prefer = []string{"%[when=%c] c=" + spec + " %[when=%cxx] cxx=" + spec + " %[when=%fortran] fortran=" + spec}
	}
	if len(prefer) > 0 {
		all.Set("prefer", templated(prefer))
	}
	if len(env.Variants) > 0 {
		all.Set("variants", templated(env.Variants))
	}
	packages := &yamlpos.Map{}
	if all.Len() > 0 {
		packages.Set("all", all)
	}
	if net.mpi != "" {
		packages.Set("mpi", yamlpos.NewMap("require", net.mpi))
	}
	return packages
}

// network is what the MPI of an environment adds to it.
type network struct {
	mpi   string // name of the implementation, "" for none
	specs []string
}

// networks returns what the MPI of each environment adds to it.
func (r *renderer) networks() []network {
	networks := make([]network, len(r.recipe.Environments))
	added := make([][]string, len(networks))
	for i, env := range r.recipe.Environments {
		networks[i] = r.networkOf(env)
		added[i] = networks[i].specs
	}
	for i, specs := range r.shared(added) {
		networks[i].specs = specs
	}
	return networks
}

var packageName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*`)

// networkOf looks up the MPI of an environment in the cluster's network.yaml:
// it must be known there, and brings the specs it needs on this cluster unless
// the recipe has its own.
func (r *renderer) networkOf(env recipe.Environment) network {
	spec := strings.TrimSpace(env.Network.MPI)
	if spec == "" {
		return network{}
	}
	at := env.Node.Get("network").Get("mpi")
	name := packageName.FindString(spec)
	var known []string
	var entry *yamlpos.Node
	if offers := r.in.Cluster.Network.Get("mpi"); offers != nil {
		for _, p := range offers.Pairs {
			offered, _ := p.Key.Value.(string)
			known = append(known, offered)
			if offered == name {
				entry = p.Value
			}
		}
	}
	if !slices.Contains(known, name) {
		hint := didYouMean(name, known)
		if len(known) == 0 {
			hint = "the cluster configuration has no network.yaml with MPIs"
		}
		r.Fail(at, hint, "%s is not a supported MPI of cluster '%s'", name, r.in.System)
		return network{}
	}
	specs := env.Network.Specs
	if len(specs) == 0 {
		specs = stringsOf(entry.Get("specs"))
	}
	return network{mpi: name, specs: append([]string{spec}, specs...)}
}

// stringsOf returns the strings of a list.
func stringsOf(n *yamlpos.Node) []string {
	if n == nil {
		return nil
	}
	var items []string
	for _, item := range n.Items {
		if s, ok := item.Str(); ok {
			items = append(items, s)
		}
	}
	return items
}
