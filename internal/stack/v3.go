package stack

import (
	"slices"
	"strings"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

// renderV3 makes one Spack environment with a group of specs per compiler and
// environment of the recipe. Spack 1.2 builds the groups in order of need.
func (r *renderer) renderV3() {
	r.guessVersion()
	r.spackClone()
	r.mirrorsV2()
	config := r.spackConfig()
	config.Set("install_tree", yamlpos.NewMap("root", r.mount))
	r.yaml("config/config.yaml", yamlpos.NewMap("config", config))
	r.reposV2()

	compilers := map[string]Compiler{}
	for _, c := range r.recipe.Compilers.V2 {
		compilers[c.Name] = compilerV3(c)
	}
	if r.oldSpack() {
		r.environmentsApart(compilers)
	} else {
		r.environmentV3(compilers)
	}
	r.modulesV2(nil)
	r.packagesV3(compilers["gcc"].Environment == "")
	r.userConfig("generate-config/packages.yaml", nil)
}

// compilerV3 is a compiler of the recipe; one that is not built by a group is
// the cluster's.
func compilerV3(c recipe.Compiler) Compiler {
	if c.System {
		return Compiler{Package: c.Name}
	}
	return Compiler{Package: c.Name, Environment: c.Name, Spec: c.Name + "@" + c.Version}
}

// packagesV3 writes the packages to build with, and those that the image's
// users see: there the cluster's gcc is left out unless the recipe builds with it.
func (r *renderer) packagesV3(systemGCC bool) {
	if _, ok := overlay(nil, r.clusterLayer()).Get("gcc"); !ok {
		r.failNoGCC()
		return
	}
	r.reportReplaced(r.clusterLayer(), r.networkLayer(), r.recipeLayer())
	build := overlay(nil, r.clusterLayer(), r.networkLayer(), r.recipeLayer())
	install := build
	if !systemGCC {
		install = without(build, "gcc")
	}
	data := r.marshal(packagesFile(install), true)
	r.file("config/packages.yaml", r.marshal(packagesFile(build), true))
	r.file("generate-config/packages.yaml", data)
	if len(r.tree.Modules.Types) > 0 {
		r.file("modules/packages.yaml", data)
	}
}

func (r *renderer) environmentV3(compilers map[string]Compiler) {
	env := SpackEnvironment{Name: "env", Dir: "env", Kind: KindEnvironment, CacheExclude: cacheExclude, CacheExcludeGit: true}
	var specs []any
	add := func(g Group, group *yamlpos.Map) {
		env.Groups = append(env.Groups, g)
		env.Specs = append(env.Specs, g.Specs...)
		specs = append(specs, group)
	}
	r.compilerGroups(compilers, add)
	views := &yamlpos.Map{}
	networks := r.networks()
	for i, e := range r.recipe.Environments {
		net := networks[i]
		used := compilersOf(e, compilers)
		g := Group{Name: e.Name, Needs: groupsOf(used), Specs: slices.Concat(e.Specs, net.specs)}
		add(g, r.userGroup(e, g, net, compilers))
		for _, v := range e.Views {
			view := r.view(v, v.Name, used)
			view.Group = e.Name
			env.Views = append(env.Views, view)
			config := r.viewConfig(v)
			config.Set("group", e.Name)
			config.Set("link", v.Link)
			views.Set(v.Name, config)
		}
	}
	spack := yamlpos.NewMap("concretizer", yamlpos.NewMap("reuse", false), "specs", specs)
	if views.Len() > 0 {
		spack.Set("view", views)
	}
	r.tree.Environments = append(r.tree.Environments, env)
	r.yaml("env/spack.yaml", yamlpos.NewMap("spack", spack))
}

// compilerGroups adds a group for every compiler that the recipe builds, and
// one for the tools of the image.
func (r *renderer) compilerGroups(compilers map[string]Compiler, add func(Group, *yamlpos.Map)) {
	var needs []string
	if compilers["gcc"].Environment != "" {
		needs = []string{"gcc"}
	}
	for _, c := range r.recipe.Compilers.V2 {
		if c.System {
			continue
		}
		g := Group{Name: c.Name, Specs: []string{compilerSpecV3(c)}}
		override := yamlpos.NewMap("concretizer", yamlpos.NewMap("unify", "when_possible", "reuse", false))
		if c.Name == "gcc" {
			override.Set("packages", gccPackagesV3())
		} else {
			g.Needs = needs
		}
		add(g, groupMap(g, false, override))
	}
	tools := Group{Name: ToolsEnvironment, Needs: needs, Specs: []string{"squashfs"}}
	add(tools, groupMap(tools, false, yamlpos.NewMap("concretizer", yamlpos.NewMap("unify", true, "reuse", false))))
}

// compilerSpecV3 is what is built for a compiler: the recipe's suffix or the
// usual one after its version.
func compilerSpecV3(c recipe.Compiler) string {
	suffix := map[string]string{"gcc": "+bootstrap", "nvhpc": "~mpi~blas~lapack", "llvm": "+clang ~gold"}[c.Name]
	if c.Spec != nil && *c.Spec != "" {
		suffix = *c.Spec
	}
	spec := c.Name + "@" + c.Version + " " + suffix
	if c.Name == "gcc" {
		return spec // upstream trims all but this
	}
	return strings.TrimSpace(spec)
}

// groupMap is a spec group as spack.yaml holds it.
func groupMap(g Group, explicit bool, override *yamlpos.Map) *yamlpos.Map {
	group := yamlpos.NewMap("group", g.Name)
	if !explicit {
		group.Set("explicit", false)
	}
	if len(g.Needs) > 0 {
		group.Set("needs", list(g.Needs))
	}
	group.Set("specs", templated(g.Specs))
	group.Set("override", override)
	return group
}

// userGroup is the group of an environment of the recipe.
func (r *renderer) userGroup(e recipe.Environment, g Group, net network, compilers map[string]Compiler) *yamlpos.Map {
	override := yamlpos.NewMap(
		"config", yamlpos.NewMap("deprecated", e.Deprecated),
		"concretizer", yamlpos.NewMap("reuse", false, "unify", e.Unify,
			"duplicates", yamlpos.NewMap("strategy", e.Duplicates)),
	)
	if packages := r.preferences(e, net, preferredV3(compilers)); packages.Len() > 0 {
		override.Set("packages", packages)
	}
	return groupMap(g, true, override)
}

// preferredV3 returns how compilers are named where they are preferred.
func preferredV3(compilers map[string]Compiler) func(name string) string {
	return func(name string) string {
		if spec := compilers[name].Spec; spec != "" {
			return spec // tells the built compiler from the cluster's
		}
		return name
	}
}

// environmentsApart makes an environment of each group, as format 2 has them, for a
// Spack that knows no groups. What a group needs is built before, and found by it as
// a package of the system.
func (r *renderer) environmentsApart(compilers map[string]Compiler) {
	for _, c := range r.recipe.Compilers.V2 {
		if c.System {
			continue
		}
		env := SpackEnvironment{
			Name: c.Name, Dir: "compilers/" + c.Name, Kind: KindCompiler, CacheExclude: cacheExclude,
			Specs: []string{compilerSpecV3(c)}, Include: []string{"packages.yaml", "config.yaml"},
		}
		var packages *yamlpos.Map
		if c.Name == "gcc" {
			packages = gccPackagesV3()
		} else if gcc := compilers["gcc"]; gcc.Environment != "" {
			env.BuiltWith = []Compiler{gcc}
		}
		r.tree.Environments = append(r.tree.Environments, env)
		r.yaml(env.Dir+"/spack.yaml", compilerEnvironment(env, "when_possible", packages))
	}
	networks := r.networks()
	for i, e := range r.recipe.Environments {
		r.environmentWith(e, networks[i], compilersOf(e, compilers), preferredV3(compilers))
	}
	r.environmentWith(toolsRecipe(), network{}, []Compiler{compilers["gcc"]}, preferredV3(compilers))
}

func gccPackagesV3() *yamlpos.Map {
	return yamlpos.NewMap("gcc", yamlpos.NewMap("variants", []any{"build_type=Release +bootstrap +strip ~binutils"}))
}

// groupsOf are the groups that build the given compilers.
func groupsOf(compilers []Compiler) []string {
	var groups []string
	for _, c := range compilers {
		if c.Environment != "" {
			groups = append(groups, c.Environment)
		}
	}
	return groups
}
