package stack_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/stack"
)

// environments returns recipe files with another environments.yaml.
func environments(base files, text string) files {
	return base.with(files{"environments.yaml": text})
}

func TestUnify(t *testing.T) {
	for value, want := range map[string]string{"false": "false", "true": "true", "when_possible": "when_possible"} {
		v1 := rendered(t, environments(recipeV1, "tools: {compiler: [{toolchain: gcc, spec: gcc}], specs: [], unify: "+value+"}"))
		wantYAML(t, at(t, v1, "environments/tools/spack.yaml", "spack", "concretizer"), "{unify: "+want+", reuse: false}")
		env := "tools: {compiler: [gcc], specs: [], unify: " + value + ", duplicates: {strategy: full}}"
		concretizer := "{unify: " + want + ", reuse: false, duplicates: {strategy: full}}"
		v2 := rendered(t, environments(recipeV2, env))
		wantYAML(t, at(t, v2, "environments/tools/spack.yaml", "spack", "concretizer"), concretizer)
		v3 := rendered(t, environments(recipeV3, env))
		wantYAML(t, group(t, v3, "tools").Get("override").Get("concretizer"), concretizer)
	}
}

func TestDeprecatedIsPassedOn(t *testing.T) {
	env := "tools: {compiler: [gcc], specs: [], deprecated: true}"
	wantYAML(t, at(t, rendered(t, environments(recipeV2, env)), "environments/tools/spack.yaml", "spack", "config"), "{deprecated: true}")
	wantYAML(t, group(t, rendered(t, environments(recipeV3, env)), "tools").Get("override").Get("config"), "{deprecated: true}")
}

const viewsYAML = `
tools:
  compiler: [gcc]
  specs: [zlib]
  views:
    all: {link: all}
    some:
      link: run
      select: ['hdf5+mpi']
      exclude: ['%gcc@12']
      projections: {all: '{name}/{version}', hdf5: h5}
    empty: {select: [], exclude: []}
`

func TestViews(t *testing.T) {
	v2 := rendered(t, environments(recipeV2, viewsYAML))
	wantYAML(t, at(t, v2, "environments/tools/spack.yaml", "spack", "view"), `
all: {link: all, root: /user-environment/env/all}
some: {link: run, root: /user-environment/env/some, select: ['hdf5+mpi'], exclude: ['%gcc@12'], projections: {all: '{name}/{version}', hdf5: h5}}
empty: {link: roots, root: /user-environment/env/empty, select: [], exclude: []}`)
	v3 := rendered(t, environments(recipeV3, viewsYAML))
	wantYAML(t, at(t, v3, "env/spack.yaml", "spack", "view"), `
all: {group: tools, link: all, root: /user-environment/env/all}
some: {group: tools, link: run, root: /user-environment/env/some, select: ['hdf5+mpi'], exclude: ['%gcc@12'], projections: {all: '{name}/{version}', hdf5: h5}}
empty: {group: tools, link: roots, root: /user-environment/env/empty}`)
	none := "tools: {compiler: [gcc], specs: [zlib]}"
	wantYAML(t, at(t, rendered(t, environments(recipeV2, none)), "environments/tools/spack.yaml", "spack", "view"), "false")
	wantYAML(t, at(t, rendered(t, environments(recipeV3, none)), "env/spack.yaml", "spack", "view"), "")
}

// Spack before 0.24 activates one view per environment: further views become
// environments of their own, after all others.
func TestViewCloningV1(t *testing.T) {
	tree := rendered(t, environments(recipeV1, `
a:
  compiler: [{toolchain: gcc, spec: gcc@12.3}]
  specs: [zlib]
  views: {w1: , w2: {exclude: [perl]}, w3: {link: all}}
b: {compiler: [{toolchain: gcc, spec: gcc@12.3}], specs: [cmake]}
`))
	var names []string
	for _, e := range tree.Environments {
		names = append(names, e.Name)
	}
	if want := []string{"bootstrap", "gcc", "a", "b", "a-2__", "a-3__"}; !slices.Equal(names, want) {
		t.Errorf("environments %v, want %v", names, want)
	}
	wantYAML(t, at(t, tree, "environments/a/spack.yaml", "spack", "view"), "default: {link: roots, root: /user-environment/env/w1}")
	wantYAML(t, at(t, tree, "environments/a-2__/spack.yaml", "spack", "view"), "default: {link: roots, root: /user-environment/env/w2, exclude: [perl]}")
	wantYAML(t, at(t, tree, "environments/a-3__/spack.yaml", "spack", "specs"), "[zlib]")
	wantYAML(t, at(t, tree, "environments/b/spack.yaml", "spack", "view"), "false")
	wantYAML(t, at(t, tree, "store/meta/env.json.in", "views", "w3"),
		"{activate: /user-environment/env/w3/activate.sh, description: '', root: /user-environment/env/w3}")
	clone := tree.Environments[4]
	if v := clone.Views[0]; v.Name != "w2" || v.SpackName != "default" || v.Root != "/user-environment/env/w2" {
		t.Errorf("view of the clone: %+v", v)
	}
}

func TestPrefer(t *testing.T) {
	env := func(s string) string { return "tools: {compiler: [intel-oneapi-compilers, gcc], specs: []" + s + "}" }
	compilers := files{"compilers.yaml": "gcc: {version: '13'}\nintel-oneapi-compilers: {version: '2025.1'}\n"}
	prefer := func(r files, s string) string {
		tree := rendered(t, environments(r, env(s)).with(compilers))
		if strings.Contains(r["config.yaml"], "version: 3") {
			return flow(t, group(t, tree, "tools").Get("override").Get("packages").Get("all").Get("prefer"))
		}
		return flow(t, at(t, tree, "environments/tools/spack.yaml", "spack", "packages", "all", "prefer"))
	}
	for _, c := range []struct {
		recipe files
		prefer string
		want   string
	}{
		{recipeV2, "", `["%[when=%c] c=oneapi %[when=%cxx] cxx=oneapi %[when=%fortran] fortran=oneapi"]`},
		{recipeV3, "", `["%[when=%c] c=oneapi@2025.1 %[when=%cxx] cxx=oneapi@2025.1 %[when=%fortran] fortran=oneapi@2025.1"]`},
		{recipeV2, ", prefer: ['%gcc', '@5:']", `["%gcc", "@5:"]`},
		{recipeV3, ", prefer: ['%gcc', '@5:']", `["%gcc", "@5:"]`},
	} {
		if got := prefer(c.recipe, c.prefer); got != c.want {
			t.Errorf("prefer%s: got %s, want %s", c.prefer, got, c.want)
		}
	}
	nothing := rendered(t, environments(recipeV2, "tools: {compiler: [gcc], specs: [], prefer: []}"))
	wantYAML(t, at(t, nothing, "environments/tools/spack.yaml", "spack", "packages"), "")
}

func TestCleanup(t *testing.T) {
	if tree := rendered(t, recipeV3); tree.Cleanup != "none" {
		t.Errorf("default cleanup %q", tree.Cleanup)
	}
	tree := rendered(t, recipeV3.with(files{"config.yaml": recipeV3["config.yaml"] + "cleanup: runtime\n"}))
	if tree.Cleanup != "runtime" {
		t.Errorf("cleanup %q", tree.Cleanup)
	}
}

// Stackinator adds the MPI to the list of specs itself, which environments share
// by an alias or a merge key.
func TestSharedSpecs(t *testing.T) {
	const gcc, network = "compiler: [gcc]", "network: {mpi: openmpi}"
	for _, c := range []struct {
		base          files
		compiler, mpi string
	}{
		{recipeV1, "compiler: [{toolchain: gcc, spec: gcc}]", "mpi: {spec: cray-mpich}"}, {recipeV2, gcc, network}, {recipeV3, gcc, network},
	} {
		for _, text := range []struct{ environments, want string }{
			{"a: {C, specs: &s [zlib], M}\nb: {C, specs: *s}\n", "[zlib, MPI]"},
			{"a: {C, specs: &s [zlib]}\nb: {C, specs: *s, M}\n", "[zlib, MPI]"},
			{"a: &a {C, specs: [zlib], M}\nb: {<<: *a, unify: false}\n", "[zlib, MPI, MPI]"},
			{"a: &a {C, specs: [zlib], M}\nb: {<<: *a, specs: [zlib]}\n", "[zlib, MPI]"},
		} {
			environments := strings.NewReplacer("C", c.compiler, "M", c.mpi).Replace(text.environments)
			r := c.base.with(files{"environments.yaml": environments})
			mpi := map[bool]string{true: "openmpi", false: "cray-mpich"}[c.mpi == network]
			want := strings.ReplaceAll(text.want, "MPI", mpi)
			tree, warnings := render(t, input(t, r, clusterFor(r)))
			for _, name := range []string{"a", "b"} {
				if hasFile(tree, "env/spack.yaml") {
					wantYAML(t, group(t, tree, name).Get("specs"), want)
				} else {
					wantYAML(t, at(t, tree, "environments/"+name+"/spack.yaml", "spack", "specs"), want)
				}
			}
			warned := slices.ContainsFunc(warnings, func(p fault.Problem) bool { return p.Rule == "shared-specs" })
			if own := strings.Contains(environments, "<<: *a, specs"); warned == own {
				t.Errorf("%s: warnings %v", environments, warnings)
			}
		}
	}
}

func TestModules(t *testing.T) {
	for _, c := range []struct{ file, want, types string }{
		{"modules: {}", "{modules: {default: {arch_folder: false, roots: {tcl: R}}}}", "tcl"},
		{"modules: {default: {enable: [lmod]}}", "{modules: {default: {enable: [lmod], arch_folder: false, roots: {lmod: R}}}}", "lmod"},
		{"modules: {default: {roots: {lmod: null}}}", "{modules: {default: {arch_folder: false, roots: {lmod: R}}}}", "lmod"},
		{"modules: {default: {enable: null}}", "{modules: {default: {enable: null, arch_folder: false, roots: {tcl: R}}}}", "tcl"},
		{"modules: {default: {roots: {lmod: /x, tcl: /y}, tcl: {hash_length: 0}}}",
			"{modules: {default: {arch_folder: false, roots: {lmod: R, tcl: R}, tcl: {hash_length: 0}}}}", "lmod tcl"},
	} {
		for _, base := range []files{recipeV2, recipeV3} {
			tree := rendered(t, base.with(files{"modules.yaml": c.file}))
			wantYAML(t, at(t, tree, "modules/modules.yaml"), strings.ReplaceAll(c.want, "R", "/user-environment/modules"))
			if got := strings.Join(tree.Modules.Types, " "); got != c.types {
				t.Errorf("%s: types %q, want %q", c.file, got, c.types)
			}
			wantYAML(t, at(t, tree, "store/meta/env.json.in", "modules"), "{root: /user-environment/modules}")
		}
	}
	none := rendered(t, recipeV3)
	if hasFile(none, "modules/modules.yaml") || len(none.Modules.Types) > 0 {
		t.Error("a recipe without modules.yaml has modules")
	}
	wantYAML(t, at(t, none, "store/meta/env.json.in", "modules"), "null")
}

func TestModulesV1(t *testing.T) {
	on := strings.Replace(recipeV1["config.yaml"], "modules: false", "modules: true", 1)
	with := rendered(t, recipeV1.with(files{"config.yaml": on, "modules.yaml": "modules: {default: {roots: {tcl: x}, enable: [tcl]}}"}))
	wantYAML(t, at(t, with, "modules/modules.yaml"), "modules: {default: {roots: {tcl: /user-environment/modules}, enable: [tcl]}}")
	if with.Modules.FromSpack || !slices.Equal(with.Modules.Types, []string{"tcl"}) {
		t.Errorf("modules %+v", with.Modules)
	}
	without := rendered(t, recipeV1.with(files{"config.yaml": on}))
	if !without.Modules.FromSpack || hasFile(without, "modules/modules.yaml") {
		t.Fatalf("modules %+v", without.Modules)
	}
	made, err := without.DefaultModules([]byte("modules:\n  default:\n    roots:\n      tcl: $spack/share\n      lmod: y\n"))
	if err != nil || made.Path != "modules/modules.yaml" || !strings.Contains(string(made.Data), "tcl: /user-environment/modules") {
		t.Errorf("%+v, %v", made, err)
	}
	if _, err := without.DefaultModules([]byte("modules: {}")); err == nil {
		t.Error("a default file without roots is accepted")
	}
	off := rendered(t, recipeV1.with(files{"modules.yaml": "modules: {default: {roots: {lmod: x}}}"}))
	wantYAML(t, at(t, off, "modules/modules.yaml"), "modules: {default: {roots: {lmod: x, tcl: /user-environment/modules}}}")
	if len(off.Modules.Types) > 0 {
		t.Errorf("modules that are switched off: %+v", off.Modules)
	}
}

func TestSeveralPackageRepositories(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		tree := rendered(t, recipeV2.with(files{
			"config.yaml": "name: demo\nversion: " + version + `
spack:
  repo: https://example.org/spack.git
  commit: releases/v1.1
  packages:
    zoo: {repo: 'https://example.org/zoo.git', commit: v1, path: somewhere/zoo}
    builtin: {repo: 'https://example.org/packages.git', commit: develop}
`,
			"repo/packages/mine/package.py": "",
		}))
		names := at(t, tree, "config/repos.yaml", "repos")
		var order []string
		for _, p := range names.Pairs {
			order = append(order, p.Key.Raw)
		}
		if want := []string{"recipe", "alps", "zoo", "builtin"}; !slices.Equal(order, want) {
			t.Errorf("version %s: repositories %v, want %v", version, order, want)
		}
		v1, develop := "v1", "develop"
		want := []stack.Clone{
			{Name: "zoo", To: "repos/zoo", Repo: "https://example.org/zoo.git", Commit: &v1, CopyPath: "somewhere/zoo", CopyTo: "store/repos/spack_repo/zoo"},
			{Name: "builtin", To: "repos/builtin", Repo: "https://example.org/packages.git", Commit: &develop,
				CopyPath: "repos/spack_repo/builtin", CopyTo: "store/repos/spack_repo/builtin"},
		}
		if tree.Clones[0].Name != "spack" || !reflect.DeepEqual(tree.Clones[1:], want) {
			t.Errorf("version %s: clones %+v", version, tree.Clones)
		}
		if got := file(t, tree, "store/repos/spack_repo/recipe/repo.yaml"); got != "repo:\n  namespace: recipe\n  api: v2.0\n" {
			t.Errorf("repo.yaml %q", got)
		}
		wantYAML(t, at(t, tree, "store/meta/configure.json", "spack", "packages", "zoo", "path"), "somewhere/zoo")
	}
}

// A repository may be called repo, and may be the whole of its git repository.
func TestPackageRepositoryCalledRepo(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		config := "name: demo\nversion: " + version + "\nspack:\n  repo: x\n  commit: v1.1.0\n  packages:\n    repo: {repo: 'https://example.org/zoo.git', commit: v1.0.0, path: ''}\n"
		tree := rendered(t, recipeV2.with(files{"config.yaml": config}))
		wantYAML(t, at(t, tree, "config/repos.yaml", "repos", "repo"), "/user-environment/repos/spack_repo/repo")
		if c := tree.Clones[1]; c.Name != "repo" || c.CopyPath != "." {
			t.Errorf("version %s: %+v", version, c)
		}
	}
}

func TestCompilerSpecs(t *testing.T) {
	compilers := func(s string) files { return recipeV3.with(files{"compilers.yaml": s}) }
	wantYAML(t, group(t, rendered(t, compilers("gcc: {version: '14', spec: ' +strip '}\n")), "gcc").Get("specs"), "['gcc@14  +strip ']") // as upstream: gcc alone is not trimmed
	tree := rendered(t, compilers("gcc: {version: '14', spec: '~bootstrap +strip'}\nllvm: {version: '19', spec: null}\nllvm-amdgpu: {version: '6.3', spec: +rocm}\nnvhpc: {version: '25.5'}\n"))
	for name, want := range map[string]string{
		"gcc": "gcc@14 ~bootstrap +strip", "llvm": "llvm@19 +clang ~gold", "llvm-amdgpu": "llvm-amdgpu@6.3 +rocm", "nvhpc": "nvhpc@25.5 ~mpi~blas~lapack",
	} {
		wantYAML(t, group(t, tree, name).Get("specs"), "['"+want+"']")
	}
	wantYAML(t, group(t, tree, "llvm").Get("needs"), "[gcc]")
	wantYAML(t, group(t, tree, "gcc").Get("override"), `
concretizer: {unify: when_possible, reuse: false}
packages: {gcc: {variants: [build_type=Release +bootstrap +strip ~binutils]}}`)
	wantYAML(t, group(t, tree, "tools").Get("needs"), "[gcc]")
}

func TestSystemGCC(t *testing.T) {
	tree := rendered(t, recipeV3.with(files{"compilers.yaml": "gcc: {version: system}\nllvm: {version: '19'}\n"}))
	for _, g := range at(t, tree, "env/spack.yaml", "spack", "specs").Items {
		if name, _ := g.Get("group").Str(); name == "gcc" {
			t.Error("a group for the cluster's gcc")
		}
		wantYAML(t, g.Get("needs"), "")
	}
	wantYAML(t, group(t, tree, "tools").Get("override").Get("packages").Get("all").Get("prefer"),
		"['%[when=%c] c=gcc %[when=%cxx] cxx=gcc %[when=%fortran] fortran=gcc']")
	if at(t, tree, "generate-config/packages.yaml", "packages", "gcc") == nil {
		t.Error("the image's users do not see the cluster's gcc")
	}
	if c := tree.Environments[0].Views[0].Compilers; len(c) != 1 || c[0] != (stack.Compiler{Package: "gcc"}) {
		t.Errorf("compilers of the view: %+v", c)
	}
	if at(t, rendered(t, recipeV3), "generate-config/packages.yaml", "packages", "gcc") != nil {
		t.Error("the image's users see the cluster's gcc though another is built")
	}
}

// The recipe shown in public in 2024.
func TestSlideDialect(t *testing.T) {
	tree := rendered(t, recipeV1.with(files{
		"compilers.yaml": "bootstrap: {spec: gcc@11}\ngcc: {specs: [gcc@11]}\nllvm: {requires: gcc@11, specs: [nvhpc@22.11, llvm@14]}\n",
		"environments.yaml": `
nvhpc-env:
  compiler:
    - {toolchain: llvm, spec: nvhpc@22.11}
    - {toolchain: gcc,  spec: gcc@11}
  mpi: {spec: cray-mpich, gpu: null}
  unify: true
  specs: [cmake%gcc, cuda@11.8, fftw, openblas, 'libxc@5.2.3%nvhpc~cuda', 'quantum-espresso@7.1 %nvhpc +libxc +cuda ~scalapack ^openblas threads=openmp ^libxc', patchelf%gcc]
  variants: [+mpi, +cuda, cuda_arch=80]
  packages: [gmake, m4, perl]
  views:
    default:
    develop: {exclude: ['quantum-espresso']}
`}))
	wantYAML(t, at(t, tree, "compilers/llvm/spack.yaml", "spack", "specs"),
		"['nvhpc@22.11~mpi~blas~lapack', 'llvm@14 +clang targets=x86 ~gold ^ninja@kitware']")
	wantYAML(t, at(t, tree, "environments/nvhpc-env/spack.yaml", "spack", "packages"), `
all:
  compiler: ['nvhpc@22.11', 'gcc@11']
  require:
  - one_of: ['%nvhpc@22.11', 'cmake%gcc', 'libxc@5.2.3%nvhpc~cuda', 'quantum-espresso@7.1 %nvhpc +libxc +cuda ~scalapack ^openblas threads=openmp ^libxc', 'patchelf%gcc']
  variants: [+mpi, +cuda, cuda_arch=80]
mpi: {require: cray-mpich}`)
	specs := at(t, tree, "environments/nvhpc-env-2__/spack.yaml", "spack", "specs").Items
	if got, _ := specs[len(specs)-1].Str(); got != "cray-mpich" {
		t.Errorf("last spec %q", got)
	}
	env := tree.Environments[3]
	want := []stack.Compiler{{Package: "nvhpc", Environment: "llvm", Spec: "nvhpc@22.11"}, {Package: "gcc", Environment: "gcc", Spec: "gcc@11"}}
	if !reflect.DeepEqual(env.BuiltWith, want) || !slices.Equal(env.ExternalFind, []string{"gmake", "m4", "perl"}) || !env.NotBuildable {
		t.Errorf("%+v", env)
	}
	if llvm := tree.Environments[2]; llvm.BuiltWith[0] != (stack.Compiler{Package: "gcc", Environment: "gcc", Spec: "gcc@11"}) {
		t.Errorf("%+v", llvm)
	}
}

func TestMPIV1(t *testing.T) {
	for mpi, want := range map[string]string{
		"{spec: cray-mpich@8.1.29}":            "cray-mpich@8.1.29",
		"{spec: cray-mpich, gpu: cuda}":        "cray-mpich +cuda",
		"{spec: cray-mpich, gpu: false}":       "cray-mpich",
		"{spec: mpich, gpu: rocm}":             "mpich@4.1 device=ch4 netmod=ofi +slurm +rocm",
		"{spec: 'mpich@4.2'}":                  "mpich@4.2 device=ch4 netmod=ofi +slurm",
		"{spec: mvapich2}":                     "mvapich2@3.0a +xpmem fabrics=ch4ofi ch4_max_vcis=4 process_managers=slurm",
		"{spec: openmpi}":                      "openmpi@5 +internal-pmix +legacylaunchers +orterunprefix fabrics=cma,ofi,xpmem schedulers=slurm",
		"{spec: 'cray-mpich@8.1.29%nvhpc@24'}": "cray-mpich@8.1.29%nvhpc@24",
	} {
		tree := rendered(t, environments(recipeV1, "tools: {compiler: [{toolchain: gcc, spec: gcc}], specs: [zlib], mpi: "+mpi+"}"))
		wantYAML(t, at(t, tree, "environments/tools/spack.yaml", "spack", "specs"), "[zlib, '"+want+"']")
	}
}

func TestNetwork(t *testing.T) {
	for _, c := range []struct{ network, specs, mpi string }{
		{"{mpi: cray-mpich}", "[zlib, cray-mpich, 'libfabric@2.2:']", "cray-mpich"},
		{"{mpi: ' cray-mpich@8.1.32+cuda '}", "[zlib, cray-mpich@8.1.32+cuda, 'libfabric@2.2:']", "cray-mpich"},
		{"{mpi: cray-mpich, specs: [libfabric@1]}", "[zlib, cray-mpich, libfabric@1]", "cray-mpich"},
		{"{mpi: cray-mpich, specs: []}", "[zlib, cray-mpich, 'libfabric@2.2:']", "cray-mpich"},
		{"{mpi: openmpi}", "[zlib, openmpi]", "openmpi"},
		{"{specs: [libfabric@1]}", "[zlib]", ""},
	} {
		env := "tools: {compiler: [gcc], specs: [zlib], network: " + c.network + "}"
		v2, v3 := rendered(t, environments(recipeV2, env)), rendered(t, environments(recipeV3, env))
		wantYAML(t, at(t, v2, "environments/tools/spack.yaml", "spack", "specs"), c.specs)
		wantYAML(t, group(t, v3, "tools").Get("specs"), c.specs)
		want := ""
		if c.mpi != "" {
			want = "{require: " + c.mpi + "}"
		}
		wantYAML(t, at(t, v2, "environments/tools/spack.yaml", "spack", "packages", "mpi"), want)
		wantYAML(t, group(t, v3, "tools").Get("override").Get("packages").Get("mpi"), want)
	}
}

func TestNetworkRefuses(t *testing.T) {
	env := func(mpi string) files {
		return environments(recipeV3, "tools:\n  compiler: [gcc]\n  specs: [zlib]\n  network:\n    mpi: "+mpi+"\n")
	}
	p := refused(t, input(t, env("cray-mpihc@8"), clusterV2))[0]
	if p.Line != 5 || p.Column != 10 || p.Message != "cray-mpihc is not a supported MPI of cluster 'daint'" || p.Hint != "did you mean 'cray-mpich'?" {
		t.Errorf("%+v", p)
	}
	noNetwork := files{"packages.yaml": clusterV2["packages.yaml"]}
	if p := refused(t, input(t, env("cray-mpich"), noNetwork))[0]; !strings.Contains(p.Hint, "network.yaml") {
		t.Errorf("%+v", p)
	}
}

const envVarsYAML = `
tools:
  compiler: [gcc]
  specs: [zlib]
  views:
    default:
      uenv:
        add_compilers: false
        prefix_paths: {LD_LIBRARY_PATH: [lib, lib64], PATH: [sbin]}
        env_vars:
          set:
          - HOME_OF: $@view_path@
          - WHERE: $@mount@/x-$@view_name@
          - LATER: '${@HOME@}/y'
          - GONE: null
          - HOME_OF: again
          - MANPATH: null
          prepend_path:
          - PATH: $@mount@/a//b/../bin
          - PATH: /second
          - CPATH: //server/include
          append_path:
          - PATH: /last/
          - MANPATH: /man
`

func TestEnvVars(t *testing.T) {
	for _, base := range []files{recipeV2, recipeV3} {
		in := input(t, environments(base, envVarsYAML), clusterV2)
		in.Mount = "/mnt/x/"
		tree, _ := render(t, in)
		wantYAML(t, at(t, tree, "store/meta/env.json.in", "views", "default", "recipe_variables"), `
scalar: {HOME_OF: again, WHERE: /mnt/x/x-default, LATER: '${@HOME@}/y', GONE: null}
list:
  CPATH: [{op: prepend, value: [//server/include]}]
  MANPATH: [{op: set, value: []}, {op: append, value: [/man]}]
  PATH: [{op: prepend, value: [/mnt/x/a/bin]}, {op: prepend, value: [/second]}, {op: append, value: [/last]}]`)
		view := tree.Environments[slices.IndexFunc(tree.Environments, func(e stack.SpackEnvironment) bool { return len(e.Views) > 0 })].Views[0]
		if view.AddCompilers || view.Root != "/mnt/x/env/default" || len(view.PrefixPaths) != 2 || view.PrefixPaths[0].Variable != "LD_LIBRARY_PATH" {
			t.Errorf("%+v", view)
		}
	}
}

func TestHooks(t *testing.T) {
	r := recipeV3.with(files{
		"pre-install":  "#!/bin/sh\necho {{ env.mount }} {{env.config}} {{ env.build}} {{\tenv.spack }} }}\r\nexit\n",
		"post-install": "#!/bin/sh\necho done",
	})
	in := input(t, r, clusterV2)
	tree, _ := render(t, in)
	want := "#!/bin/sh\necho /user-environment /user-environment/config /build /build/spack }}\nexit\n"
	if got := file(t, tree, "store/pre-install-hook"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := file(t, tree, "store/post-install-hook"); got != "#!/bin/sh\necho done\n" {
		t.Errorf("got %q", got)
	}
	if tree.Hooks.PreInstall != "store/pre-install-hook" || tree.Hooks.PostInstall != "store/post-install-hook" {
		t.Errorf("%+v", tree.Hooks)
	}
	for _, f := range tree.Files {
		if strings.HasSuffix(f.Path, "-hook") && f.Mode != 0o755 {
			t.Errorf("%s has mode %o", f.Path, f.Mode)
		}
	}
}

func TestScript(t *testing.T) {
	tree := rendered(t, recipeScript)
	if len(tree.Environments) != 1 || tree.Environments[0].Kind != stack.KindScript || len(tree.Clones) != 0 {
		t.Fatalf("%+v", tree)
	}
	if tree.Hooks.Build != "store/meta/recipe/build" {
		t.Errorf("%+v", tree.Hooks)
	}
	view := tree.Environments[0].Views[0]
	if view.Root != "/user-environment" || view.Description != "all of it" {
		t.Errorf("%+v", view)
	}
	var document map[string]any
	if err := json.Unmarshal([]byte(file(t, tree, "store/meta/env.json.in")), &document); err != nil {
		t.Fatal(err)
	}
	if document["name"] != "sdk" || document["description"] != "vendor kit" || document["mount"] != "/user-environment" {
		t.Errorf("%v", document)
	}
}
