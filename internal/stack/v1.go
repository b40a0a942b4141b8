package stack

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

// cacheExclude are packages too large, or too entangled with the system, for a
// build cache.
var cacheExclude = []string{"cuda", "nvhpc", "perl"}

// gccExternals are what the cluster provides while a version 1 gcc is built.
var gccExternals = []string{"perl", "m4", "autoconf", "automake", "libtool", "gawk", "python", "texinfo"}

// mpiOptions are the MPI implementations that version 1 knows.
var mpiOptions = map[string]struct{ version, options string }{
	"cray-mpich": {},
	"mpich":      {"4.1", "device=ch4 netmod=ofi +slurm"},
	"mvapich2":   {"3.0a", "+xpmem fabrics=ch4ofi ch4_max_vcis=4 process_managers=slurm"},
	"openmpi":    {"5", "+internal-pmix +legacylaunchers +orterunprefix fabrics=cma,ofi,xpmem schedulers=slurm"},
}

func (r *renderer) renderV1() {
	r.guessVersion()
	r.spackClone()
	written := []string{"repos.yaml", "mirrors.yaml"}
	if r.recipe.Packages != nil {
		written = append(written, "packages.yaml")
		r.reportReplaced(r.clusterLayer(), r.recipeLayer())
		r.file("config/packages.yaml", r.marshal(packagesFile(overlay(nil, r.clusterLayer(), r.recipeLayer())), true))
	}
	r.clusterFilesV1(written...)
	r.mirrorsV1()
	r.repoV1()
	groups := r.compilersV1()
	r.environmentsV1()

	var all []Compiler
	for _, group := range []string{"bootstrap", "gcc", "llvm"} {
		all = append(all, groups[group]...)
	}
	r.modulesV1(all)
	r.userConfig("config/packages.yaml", all[len(groups["bootstrap"]):])
}

// guessVersion sets the version of Spack that features are chosen by.
func (r *renderer) guessVersion() {
	version, err := guessSpackVersion(r.recipe, r.in.Develop)
	if err != nil {
		at := r.recipe.Spack.Node.Get("commit")
		if at == nil {
			at = &yamlpos.Node{File: path.Join(r.recipe.Dir, "config.yaml")}
		}
		p := at.Problem(err.Error(), "Spack 0.21, 0.22 and 0.23 work")
		p.Rule = RuleSpackTooOld
		r.Add(p)
	}
	r.version, r.tree.SpackVersion = version, version.String()
}

// userConfig lists what is installed as the configuration of the image's users.
func (r *renderer) userConfig(packages string, compilers []Compiler) {
	r.yaml("generate-config/upstreams.yaml", r.upstreams())
	r.tree.Config = UserConfig{Compilers: compilers, Install: []Copy{
		{From: packages, To: "store/config/packages.yaml"},
		{From: "config/repos.yaml", To: "store/config/repos.yaml"},
		{From: "generate-config/upstreams.yaml", To: "store/config/upstreams.yaml"},
	}}
}

// compilersV1 writes the environments that build compilers one from another:
// the cluster's gcc builds bootstrap, that builds gcc, and that builds llvm. It
// returns the compilers of each by its name.
func (r *renderer) compilersV1() map[string][]Compiler {
	c := r.recipe.Compilers
	groups := map[string][]Compiler{}
	add := func(env SpackEnvironment, unify any, packages *yamlpos.Map, offers []string) {
		env.Kind, env.Dir, env.CacheExclude = KindCompiler, "compilers/"+env.Name, cacheExclude
		env.Include = []string{"packages.yaml", "config.yaml"}
		if env.BuiltWith != nil {
			env.Include = append(env.Include, "compilers.yaml")
		}
		for _, spec := range offers {
			groups[env.Name] = append(groups[env.Name], compilerOf(env.Name, spec))
		}
		r.tree.Environments = append(r.tree.Environments, env)
		r.yaml(env.Dir+"/spack.yaml", compilerEnvironment(env, unify, packages))
	}
	add(SpackEnvironment{
		Name: "bootstrap", ExternalFind: gccExternals,
		Specs: []string{c.Bootstrap + " languages=c,c++", "squashfs default_compression=zstd"},
	}, true, gccPackagesV1("~bootstrap"), []string{c.Bootstrap})
	add(SpackEnvironment{
		Name: "gcc", ExternalFind: gccExternals, Specs: c.GCC, BuiltWith: groups["bootstrap"],
	}, "when_possible", gccPackagesV1("+bootstrap"), c.GCC)
	if len(c.LLVM) > 0 {
		add(SpackEnvironment{
			Name: "llvm", Specs: llvmSpecsV1(c.LLVM), BuiltWith: []Compiler{compilerOf("gcc", c.LLVMRequires)},
		}, "when_possible", nil, c.LLVM)
	}
	return groups
}

// compilerOf names the compiler that a spec such as "gcc@12.3" asks for.
func compilerOf(environment, spec string) Compiler {
	name, _ := cutPackage(spec)
	return Compiler{Package: name, Environment: environment, Spec: spec}
}

// cutPackage splits a spec after the name of its package.
func cutPackage(spec string) (name, rest string) {
	end := strings.IndexFunc(spec, func(c rune) bool { return strings.ContainsRune("@%+~ =^/", c) })
	if end < 0 {
		return spec, ""
	}
	return spec[:end], spec[end:]
}

func llvmSpecsV1(specs []string) []string {
	var full []string
	for _, spec := range specs {
		switch {
		case strings.HasPrefix(spec, "nvhpc"):
			full = append(full, spec+"~mpi~blas~lapack")
		case strings.HasPrefix(spec, "llvm"):
			full = append(full, spec+" +clang targets=x86 ~gold ^ninja@kitware")
		}
	}
	return full
}

// gccPackagesV1 sets how gcc and what it links to are built, so that it runs on its own.
func gccPackagesV1(bootstrap string) *yamlpos.Map {
	variants := func(v string) *yamlpos.Map { return yamlpos.NewMap("variants", []any{v}) }
	packages := yamlpos.NewMap("gcc", variants("build_type=Release "+bootstrap+" +strip"))
	for _, name := range []string{"mpc", "gmp", "mpfr", "zstd"} {
		packages.Set(name, variants("libs=static"))
	}
	packages.Set("zlib", variants("~shared"))
	return packages
}

// compilerEnvironment is the spack.yaml of an environment that builds compilers
// (versions 1 and 2).
func compilerEnvironment(env SpackEnvironment, unify any, packages *yamlpos.Map) *yamlpos.Map {
	spack := yamlpos.NewMap(
		"include", list(env.Include),
		"specs", list(env.Specs),
		"view", false,
		"concretizer", yamlpos.NewMap("unify", unify, "reuse", false),
	)
	if packages != nil {
		spack.Set("packages", packages)
	}
	return yamlpos.NewMap("spack", spack)
}

// environmentsV1 writes the environments of the recipe. Spack before 0.24 has
// one view with an activation script per environment, so an environment with
// more views becomes as many environments; the further ones come last.
func (r *renderer) environmentsV1() {
	var clones []func()
	added := make([][]string, len(r.recipe.Environments))
	for i, env := range r.recipe.Environments {
		added[i] = mpiSpecsV1(env.MPI)
	}
	added = r.shared(added)
	for i, env := range r.recipe.Environments {
		env.Specs = slices.Concat(env.Specs, added[i])
		compilers := toolchains(env)
		if len(env.Views) == 0 {
			r.environmentV1(env, env.Name, nil, compilers)
			continue
		}
		r.environmentV1(env, env.Name, &env.Views[0], compilers)
		for i := range env.Views[1:] {
			name := fmt.Sprintf("%s-%d__", env.Name, i+2)
			clones = append(clones, func() { r.environmentV1(env, name, &env.Views[i+1], compilers) })
		}
	}
	for _, clone := range clones {
		clone()
	}
}

func toolchains(env recipe.Environment) []Compiler {
	compilers := make([]Compiler, len(env.Toolchains))
	for i, t := range env.Toolchains {
		compilers[i] = compilerOf(t.Toolchain, t.Spec)
	}
	return compilers
}

func (r *renderer) environmentV1(env recipe.Environment, name string, view *recipe.View, compilers []Compiler) {
	spackEnv := SpackEnvironment{
		Name: name, Dir: "environments/" + name, Kind: KindEnvironment, Specs: env.Specs, BuiltWith: compilers,
		ExternalFind: env.Packages, NotBuildable: true, CacheExclude: cacheExclude, CacheExcludeGit: true,
	}
	if len(env.Packages) > 0 {
		spackEnv.Include = []string{"packages.yaml"}
	}
	spackEnv.Include = append(spackEnv.Include, "compilers.yaml", "config.yaml")
	var viewConfig any = false
	if view != nil {
		spackEnv.Views = []View{r.view(*view, "default", compilers)}
		viewConfig = yamlpos.NewMap("default", r.viewConfig(*view))
	}
	r.tree.Environments = append(r.tree.Environments, spackEnv)

	r.yaml(spackEnv.Dir+"/spack.yaml", yamlpos.NewMap("spack", yamlpos.NewMap(
		"include", list(spackEnv.Include),
		"config", yamlpos.NewMap("deprecated", env.Deprecated),
		"concretizer", yamlpos.NewMap("unify", env.Unify, "reuse", false),
		"specs", templated(env.Specs),
		"packages", packagesV1(env),
		"view", viewConfig,
	)))
}

// packagesV1 holds the compilers of an environment, in order of preference, its
// variants and its MPI. Where there are several compilers, specs that name one
// are allowed besides those built by the first.
func packagesV1(env recipe.Environment) *yamlpos.Map {
	var specs []string
	for _, t := range env.Toolchains {
		specs = append(specs, t.Spec)
	}
	all := yamlpos.NewMap("compiler", templated(specs))
	if len(specs) > 1 {
		allowed := []string{"%" + specs[0]}
		for _, spec := range env.Specs {
			if strings.Contains(spec, "%") {
				allowed = append(allowed, spec)
			}
		}
		all.Set("require", []any{yamlpos.NewMap("one_of", templated(allowed))})
	}
	if len(env.Variants) > 0 {
		all.Set("variants", templated(env.Variants))
	}
	packages := yamlpos.NewMap("all", all)
	if env.MPI != nil && env.MPI.Spec != "" {
		packages.Set("mpi", yamlpos.NewMap("require", asTemplated(env.MPI.Spec)))
	}
	return packages
}

// mpiSpecsV1 is the spec that an MPI adds to its environment.
func mpiSpecsV1(mpi *recipe.MPI) []string {
	if mpi == nil || mpi.Spec == "" {
		return nil
	}
	name, version, _ := strings.Cut(strings.TrimSpace(mpi.Spec), "@")
	known := mpiOptions[name] // a recipe with another does not load
	spec := name
	if version = cmp.Or(version, known.version); version != "" {
		spec += "@" + version
	}
	if known.options != "" {
		spec += " " + known.options
	}
	if mpi.GPU != "" {
		spec += " +" + mpi.GPU
	}
	return []string{spec}
}
