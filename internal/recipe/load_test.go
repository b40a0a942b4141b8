package recipe_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

// files are the contents of a recipe's files by name.
type files map[string]string

// with returns a copy with some files replaced; an empty text removes a file.
func (f files) with(changes files) files {
	c := files{}
	for _, m := range []files{f, changes} {
		for name, text := range m {
			if c[name] = text; text == "" {
				delete(c, name)
			}
		}
	}
	return c
}

func (f files) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range f {
		path := filepath.Join(dir, name)
		mode := os.FileMode(0o644)
		if name == "build" {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var (
	v1 = files{
		"config.yaml":       "name: app\nspack:\n  repo: https://example.org/spack.git\n  commit: v0.23.1\nmodules: false\n",
		"compilers.yaml":    "bootstrap:\n  spec: gcc@11.3\ngcc:\n  specs: [gcc@11.3, gcc@12]\n",
		"environments.yaml": "app:\n  compiler:\n    - {toolchain: gcc, spec: gcc@12}\n  specs: [zlib, hdf5+mpi]\n  mpi: {spec: cray-mpich@8.1, gpu: cuda}\n  views:\n    default:\n",
	}
	v2 = files{
		"config.yaml":       "name: app\nversion: 2\nspack:\n  repo: https://example.org/spack.git\n  commit: v1.0.1\n  packages:\n    repo: https://example.org/packages.git\n    commit: v2025.07.0\n",
		"compilers.yaml":    "gcc:\n  version: '13'\n",
		"environments.yaml": "app:\n  compiler: [gcc]\n  specs: [zlib]\n  network:\n    mpi: cray-mpich@9\n    specs: [libfabric]\n  views:\n    default:\n      link: roots\n",
	}
	v3     = v2.with(files{"config.yaml": strings.Replace(v2["config.yaml"], "version: 2", "version: 3", 1)})
	script = files{
		"config.yaml":       "builder: script\nname: tool\n",
		"build":             "#!/bin/sh\n",
		"environments.yaml": "views:\n  tool:\n    prefix_paths:\n      PATH: [bin]\n",
	}
)

func load(t *testing.T, f files) (*recipe.Recipe, error) {
	t.Helper()
	return recipe.Load(t.Context(), f.write(t))
}

func mustLoad(t *testing.T, f files) *recipe.Recipe {
	t.Helper()
	r, err := load(t, f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAllErrorsOfAllFilesAtOnce(t *testing.T) {
	dir := v2.with(files{
		"compilers.yaml":    "gcc:\n  verison: '13'\n",
		"environments.yaml": "app:\n  copiler: [gcc]\n  compiler: [gcc]\n  specs: [12.10]\n",
	}).write(t)
	_, err := recipe.Load(t.Context(), dir)
	want := `compilers.yaml:1:1: the key 'version' is missing in 'gcc'
compilers.yaml:2:3: unknown key 'verison' in 'gcc' (did you mean 'version'?)
environments.yaml:2:3: unknown key 'copiler' in 'app' (did you mean 'compiler'?)
environments.yaml:4:11: 'app.specs[0]' must be text, not the number 12.1 (write '12.10' with the quotes)`
	if got := strings.ReplaceAll(err.Error(), dir+"/", ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("kind %v", fault.KindOf(err))
	}
}

// Each recipe has one thing wrong; upstream's own checks are among them.
func TestErrors(t *testing.T) {
	view := func(text string) files {
		return files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: [zlib]\n  views:\n" + text}
	}
	envVars := func(text string) files {
		return view("    w:\n      uenv:\n        env_vars:\n          " + text + "\n")
	}
	configV2 := v2["config.yaml"]
	for _, c := range []struct {
		name    string
		recipe  files
		changes files
		want    string // every line of the error, without the directory
	}{
		{"config missing", v1, files{"config.yaml": ""}, "config.yaml: the file is missing"},
		{"compilers missing", v1, files{"compilers.yaml": ""}, "compilers.yaml: the file is missing"},
		{"environments missing", v2, files{"environments.yaml": ""}, "environments.yaml: the file is missing"},
		{"empty config", v1, files{"config.yaml": "# nothing\n"}, "config.yaml:1:1: the document must be a mapping, not null"},
		{"syntax", v1, files{"compilers.yaml": "gcc: [\n"}, "compilers.yaml:1:1: not valid YAML: did not find expected node content (check the indentation, brackets and quotes around this line)"},
		{"no name", v1, files{"config.yaml": "spack: {repo: x, commit: v0.23.0}\n"}, "config.yaml:1:1: the key 'name' is missing"},
		{"no spack repo", v1, files{"config.yaml": "name: x\nspack: {commit: v0.23.0}\n"}, "config.yaml:2:1: the key 'repo' is missing in 'spack'"},
		{"version 4", v2, files{"config.yaml": strings.Replace(configV2, "version: 2", "version: 4", 1)}, "config.yaml:2:10: invalid recipe version '4': must be 1, 2 or 3"},
		{"version text", v2, files{"config.yaml": strings.Replace(configV2, "version: 2", "version: '2'", 1)}, "config.yaml:2:10: 'version' must be a number, not '2' (write 2 without the quotes)"},
		{"version missing", v2, files{"config.yaml": strings.Replace(configV2, "version: 2\n", "", 1)}, "config.yaml:1:1: there is no 'version', so this is version 1, but it uses what only later versions know (looks like version 2: add 'version: 2')"},
		{"relative store", v1, files{"config.yaml": v1["config.yaml"] + "store: user-environment\n"}, "config.yaml:6:8: 'store' must be an absolute path, not 'user-environment'"},
		{"duplicate key", v1, files{"config.yaml": v1["config.yaml"] + "name: other\n"}, "config.yaml:6:1: duplicate key 'name', first given at 1:1"},
		{"v2 key in v1", v1, files{"config.yaml": v1["config.yaml"] + "default-view: app\n"}, "config.yaml:6:1: unknown key 'default-view' (versions 2 and 3 have it)"},
		{"v1 key in v2", v2, files{"config.yaml": configV2 + "mirror: {}\n"}, "config.yaml:9:1: unknown key 'mirror' (only version 1 has it, unused)"},
		{"spack builder", v2, files{"config.yaml": configV2 + "builder: spack\n"}, "config.yaml:9:1: unknown key 'builder' (the only value is 'script'; recipes for Spack do without the key)"},
		{"numeric commit", v2, files{"config.yaml": strings.Replace(configV2, "v1.0.1", "12345678", 1)}, "config.yaml:5:11: 'spack.commit' must be text or null, not the number 12345678 (write '12345678' with the quotes)"},
		{"v2 packages without commit", v2, files{"config.yaml": strings.Replace(configV2, "    commit: v2025.07.0\n", "", 1)}, "config.yaml:6:3: the key 'commit' is missing in 'spack.packages'"},
		{"reserved repository", v3, files{"config.yaml": "name: app\nversion: 3\nspack:\n  repo: r\n  commit: v1.2.0\n  packages:\n    alps: {repo: x, commit: v1.0.0}\n"}, "config.yaml:7:5: the name 'alps' is reserved for the package repository of the site (choose another name)"},
		{"repository name", v2, files{"config.yaml": strings.Replace(configV2, "    repo: https://example.org/packages.git\n    commit: v2025.07.0\n", "    a b: {repo: x, commit: v1.0.0}\n", 1)}, "config.yaml:7:5: the name 'a b' must be letters, digits, '_' and '-', not beginning with '-'"},
		{"modules true without the file", v2, files{"config.yaml": configV2 + "modules: true\n"}, "config.yaml:9:10: conflicting modules configuration: 'modules: true', but modules.yaml is missing (the presence of modules.yaml decides: remove 'modules', and the file if no modules are wanted)"},
		{"modules false with the file", v2, files{"config.yaml": configV2 + "modules: false\n", "modules.yaml": "modules: {}\n"}, "config.yaml:9:10: conflicting modules configuration: 'modules: false', but modules.yaml exists (the presence of modules.yaml decides: remove 'modules', and the file if no modules are wanted)"},
		{"module type", v3, files{"modules.yaml": "modules:\n  default:\n    enable: [tlc]\n"}, "modules.yaml:3:14: 'modules.default.enable[0]' must be 'tcl' or 'lmod', not 'tlc' (did you mean 'tcl'?)"},
		{"arch folder", v2, files{"modules.yaml": "modules: {default: {arch_folder: true}}\n"}, "modules.yaml:1:34: 'modules.default.arch_folder' must be false, not the boolean true"},
		{"v1 modules without root", v1, files{"config.yaml": strings.Replace(v1["config.yaml"], "false", "true", 1), "modules.yaml": "modules: {default: {}}\n"}, "modules.yaml:1:11: the key 'roots' is missing in 'modules.default'"},
		{"v1 modules without root, switched off", v1, files{"modules.yaml": "modules: {default: {}}\n"}, "modules.yaml:1:11: the key 'roots' is missing in 'modules.default'"},
		{"default view", v2, files{"config.yaml": configV2 + "default-view: defalt\n"}, "config.yaml:9:15: the default view 'defalt' is not a view of environments.yaml (did you mean 'default'?)"},
		{"empty default view", v2, files{"config.yaml": configV2 + "default-view: ''\n"}, "config.yaml:9:15: the default view '' is not a view of environments.yaml (there is default, spack)"},
		{"default view modules", v2, files{"config.yaml": configV2 + "default-view: modules\n"}, "config.yaml:9:15: the default view 'modules' is not a view of environments.yaml (there is default, spack)"},

		{"environment alias", v2, files{"environments.yaml": "a: &a {compiler: [gcc], specs: [zlib]}\nb: *a\n"}, "environments.yaml:2:1: the environment 'b' is an alias of 'a' (use a merge key: '<<: *NAME')"},
		{"blank before the MPI's version", v1, files{"environments.yaml": "a: {compiler: [{toolchain: gcc, spec: gcc}], specs: [zlib], mpi: {spec: cray-mpich @8}}\n"}, "environments.yaml:1:73: unsupported MPI 'cray-mpich ' (did you mean 'cray-mpich'?)"},
		{"gcc pattern", v1, files{"compilers.yaml": "bootstrap: {spec: gcc@11.3}\ngcc: {specs: [gcc@11.10]}\n"}, "compilers.yaml:2:15: 'gcc.specs[0]' must be gcc@VERSION such as gcc@12.3 (numbers of one digit after the first), not 'gcc@11.10'"},
		{"no gcc specs", v1, files{"compilers.yaml": "bootstrap: {spec: gcc@11.3}\ngcc: {specs: []}\n"}, "compilers.yaml:2:14: 'gcc.specs' must not be empty"},
		{"llvm without requires", v1, files{"compilers.yaml": v1["compilers.yaml"] + "llvm: {specs: [nvhpc@22.11]}\n"}, "compilers.yaml:5:1: the key 'requires' is missing in 'llvm'"},
		{"numeric version", v2, files{"compilers.yaml": "gcc: {version: 12.10}\n"}, "compilers.yaml:1:16: 'gcc.version' must be text, not the number 12.1 (write '12.10' with the quotes)"},
		{"bootstrap in v2", v2, files{"compilers.yaml": "bootstrap: {spec: gcc@11}\ngcc: {version: '13'}\n"}, "compilers.yaml:1:1: unknown key 'bootstrap' (only version 1 has it)"},
		{"spec in v2", v2, files{"compilers.yaml": "gcc: {version: '13', spec: ~x}\n"}, "compilers.yaml:1:22: unknown key 'spec' in 'gcc' (version 3 has it)"},

		{"environment name", v2, files{"environments.yaml": "a b:\n  compiler: [gcc]\n  specs: []\n"}, "environments.yaml:1:1: the name 'a b' must be letters, digits, '_' and '-', not beginning with '-'"},
		{"no environment", v2, files{"environments.yaml": "{}\n"}, "environments.yaml:1:1: there is no environment"},
		{"specs null", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs:\n"}, "environments.yaml:3:9: 'app.specs' must be a list, not null"},
		{"no compiler", v2, files{"environments.yaml": "app:\n  compiler: []\n  specs: []\n"}, "environments.yaml:2:13: 'app.compiler' must not be empty"},
		{"undefined compiler", v2, files{"environments.yaml": "app:\n  compiler: [gcc, nvhpc]\n  specs: []\n"}, "environments.yaml:2:19: the compiler 'nvhpc' is not defined in compilers.yaml (there is gcc)"},
		{"unknown compiler", v3, files{"environments.yaml": "app:\n  compiler: [gccc]\n  specs: []\n"}, "environments.yaml:2:14: 'app.compiler[0]' must be 'gcc', 'nvhpc', 'llvm', 'llvm-amdgpu' or 'intel-oneapi-compilers', not 'gccc' (did you mean 'gcc'?)"},
		{"undefined toolchain", v1, files{"environments.yaml": "app:\n  compiler: [{toolchain: llvm, spec: nvhpc@22}]\n  specs: []\n"}, "environments.yaml:2:26: the compiler 'llvm' is not defined in compilers.yaml (there is bootstrap, gcc)"},
		{"unify", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  unify: when_posible\n"}, "environments.yaml:4:10: 'app.unify' must be 'when_possible', true or false, not 'when_posible' (did you mean 'when_possible'?)"},
		{"v1 mpi", v1, files{"environments.yaml": "app:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: []\n  mpi: {spec: cray-mpich%nvhpc}\n"}, "environments.yaml:4:15: unsupported MPI 'cray-mpich%nvhpc' (there is cray-mpich, mpich, mvapich2, openmpi)"},
		{"v1 mpi misspelt", v1, files{"environments.yaml": "app:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: []\n  mpi: {spec: cray_mpich@8}\n"}, "environments.yaml:4:15: unsupported MPI 'cray_mpich' (did you mean 'cray-mpich'?)"},
		{"v1 gpu", v1, files{"environments.yaml": "app:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: []\n  mpi: {spec: cray-mpich, gpu: cude}\n"}, "environments.yaml:4:32: 'app.mpi.gpu' must be 'cuda', 'rocm', null or false, not 'cude' (did you mean 'cuda'?)"},
		{"mpi in v2", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  mpi: {spec: cray-mpich}\n"}, "environments.yaml:4:3: unknown key 'mpi' in 'app' (only version 1 has it: write 'network: {mpi: …}')"},
		{"network in v1", v1, files{"environments.yaml": "app:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: []\n  network: {mpi: cray-mpich}\n"}, "environments.yaml:4:3: unknown key 'network' in 'app' (versions 2 and 3 have it: version 1 has 'mpi')"},
		{"mpi spec", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  network: {mpi: '@9'}\n"}, "environments.yaml:4:18: '@9' is not a valid MPI spec (write for instance cray-mpich@9.0, or null)"},
		{"reserved environment", v2, files{"environments.yaml": "uenv_tools:\n  compiler: [gcc]\n  specs: []\n"}, "environments.yaml:1:1: the name 'uenv_tools' is taken by a group of packages that is added to every recipe of this kind (rename the environment)"},
		{"environment like a compiler", v3, files{"environments.yaml": "gcc:\n  compiler: [gcc]\n  specs: []\n"}, "environments.yaml:1:1: the name 'gcc' is taken by a group of packages that is added to every recipe of this kind (rename the environment)"},
		{"name of a clone", v1, files{"environments.yaml": "a:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: []\n  views: {x: , y: }\na-2__:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: []\n"}, "environments.yaml:5:1: the name 'a-2__' is taken by the environment made for view 2 of 'a' (rename one of them)"},

		{"view twice", v2, files{"environments.yaml": "a:\n  compiler: [gcc]\n  specs: []\n  views: {x: }\nb:\n  compiler: [gcc]\n  specs: []\n  views: {x: }\n"}, "environments.yaml:8:11: the view 'x' is defined more than once: also at 4:11 (view names are unique over all environments)"},
		{"view name", v2, view("    ../x:\n"), "environments.yaml:5:5: the name '../x' must be letters, digits, '_', '-', '.' and '+', beginning with a letter or digit"},
		{"link", v2, view("    w: {link: root}\n"), "environments.yaml:5:15: 'app.views.w.link' must be 'roots', 'all' or 'run', not 'root' (did you mean 'roots'?)"},
		{"unset", v2, envVars("unset: []"), "environments.yaml:8:11: unknown key 'unset' in 'app.views.w.uenv.env_vars' (to unset a variable, set it to null)"},
		{"set PATH", v2, envVars("set: [PATH: x]"), "environments.yaml:8:17: PATH is a search path and cannot be set (use prepend_path or append_path; null empties it)"},
		{"prepend", v3, envVars("prepend_path: [PYTHON_PATH: x]"), "environments.yaml:8:26: PYTHON_PATH is not a known search path (did you mean 'PYTHONPATH'?)"},
		{"append", v3, envVars("append_path: [FOO: x]"), "environments.yaml:8:25: FOO is not a known search path (there is ACLOCAL_PATH, CMAKE_PREFIX_PATH, CPATH, LD_LIBRARY_PATH, LIBRARY_PATH, MANPATH, MODULEPATH, PATH, PKG_CONFIG_PATH, PYTHONPATH)"},
		{"substitution", v2, envVars("set: [A: $@mont@/x]"), "environments.yaml:8:20: '$@mont@' cannot be expanded (did you mean 'mount'?)"},
		{"variable name", v2, envVars("set: [A-B: x]"), "environments.yaml:8:17: the name 'A-B' must be the name of an environment variable"},
		{"two variables", v2, envVars("set: [{A: x, B: y}]"), "environments.yaml:8:17: 'app.views.w.uenv.env_vars.set[0]' must have one entry only"},
		{"null prepend", v2, envVars("prepend_path: [PATH: null]"), "environments.yaml:8:32: 'app.views.w.uenv.env_vars.prepend_path[0].PATH' must be text, not null"},
		{"env_vars in v1", v1, files{"environments.yaml": "a:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: []\n  views: {x: {uenv: {env_vars: {}}}}\n"}, "environments.yaml:4:22: unknown key 'env_vars' in 'a.views.x.uenv' (versions 2 and 3 have it)"},

		{"packages.yaml", v2, files{"packages.yaml": "package: {}\n"}, "packages.yaml:1:1: the key 'packages' is missing"},
		{"packages empty", v2, files{"packages.yaml": "packages:\n"}, "packages.yaml:1:10: 'packages' must be a mapping, not null"},
		{"v1 mirrors", v1, files{"mirrors.yaml": "{}\n"}, "mirrors.yaml: a mirrors.yaml in the recipe is not supported (give mirrors and caches on the command line)"},
		{"hook variable", v2, files{"post-install": "#!/bin/sh\necho {{ env.mont }}\n"}, "post-install:2:6: unknown variable 'env.mont' (did you mean 'mount'?)"},
		{"hook template", v2, files{"pre-install": "{% if x %}{# c #}\n  {{ mount }}"}, "pre-install:1:1: template syntax '{%' is not supported (only {{ env.X }} is replaced, X being build, config, mount, spack)\n" +
			"pre-install:1:11: template syntax '{#' is not supported (only {{ env.X }} is replaced, X being build, config, mount, spack)\n" +
			"pre-install:2:3: template syntax '{{' is not supported (only {{ env.X }} is replaced, X being build, config, mount, spack)"},
		{"binary hook", v2, files{"pre-install": "\x7fELF\x00"}, "pre-install: is not text (have the hook start a program that lies in the recipe)"},
		{"hook directory", v2, files{"pre-install/x": "y"}, "pre-install: cannot be read: it is a directory"},

		{"script without build", script, files{"build": ""}, "build: the file is missing (it is the program that installs into the store)"},
		{"script with version", script, files{"config.yaml": script["config.yaml"] + "version: 2\n"}, "config.yaml:3:1: unknown key 'version' (recipes of the script builder have no version)"},
		{"script path", script, files{"environments.yaml": "views:\n  a:\n    prefix_paths: {PATH: [/bin, ../x, 'a:b']}\n"}, "environments.yaml:3:27: '/bin' is not a directory of the store (paths are relative to the store)\n" +
			"environments.yaml:3:33: '../x' is not a directory of the store (paths are relative to the store)\n" +
			"environments.yaml:3:39: 'a:b' cannot be part of a search path, which is separated by ':' (write one directory per entry of the list)"},
		{"script default view", script, files{"config.yaml": script["config.yaml"] + "default-view: spack\n"}, "config.yaml:3:15: the default view 'spack' is not a view of environments.yaml (there is tool)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.recipe.with(c.changes).write(t)
			_, err := recipe.Load(t.Context(), dir)
			var problems fault.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("error is %v", err)
			}
			if got := strings.ReplaceAll(problems.Errors().Error(), dir+"/", ""); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		name    string
		recipe  files
		changes files
		want    string // "rule file:line …"
	}{
		{"v1", v1, nil, ""},
		{"v2", v2, nil, ""},
		{"v3", v3, nil, ""},
		{"script", script, nil, ""},
		{"branches", v3, files{"config.yaml": "name: app\nversion: 3\nspack:\n  repo: r\n  commit: develop\n  packages:\n    a: {repo: x, commit: releases/v1}\n    b: {repo: x}\n"},
			"moving-branch config.yaml:5 moving-branch config.yaml:7 moving-branch config.yaml:8"},
		{"default branch", v1, files{"config.yaml": "name: app\nspack: {repo: r}\nmirror: {enable: true}\nmodules: no\n"}, "moving-branch config.yaml:2 unused-key config.yaml:3"},
		{"old spack", v1, files{"config.yaml": strings.Replace(v1["config.yaml"], "v0.23.1", "v0.20.1", 1)}, "spack-too-old config.yaml:4"},
		{"llvm requires", v1, files{"compilers.yaml": v1["compilers.yaml"] + "llvm: {requires: gcc@13, specs: [llvm@16]}\n"}, "llvm-requires compilers.yaml:5"},
		{"v2 modules", v2, files{"config.yaml": v2["config.yaml"] + "modules: false\n"}, "deprecated-key config.yaml:9"},
		{"v3 modules", v3, files{"config.yaml": v3["config.yaml"] + "modules: true\n"}, "ignored-key config.yaml:9"},
		{"module roots", v2, files{"modules.yaml": "modules:\n  default:\n    roots: {tcl: /x}\n"}, "ignored-key modules.yaml:3"},
		{"system gcc", v3, files{"compilers.yaml": "gcc: {version: system, spec: +x}\n"}, "ignored-key compilers.yaml:1"},
		{"v3 packages", v3, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  packages: [perl]\n"}, "ignored-key environments.yaml:4"},
		{"network specs", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  network: {specs: [libfabric]}\n"}, "network-specs environments.yaml:4"},
		{"view specs", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: [py-numpy@1, zlib]\n  views:\n    a: {exclude: [zlib@1.2, py-numpi, '%gcc']}\n    b: {link: all, exclude: [perl]}\n"}, "view-spec environments.yaml:5"},
		{"open variable", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  views:\n    a:\n      uenv:\n        env_vars:\n          set:\n          - A: ${@HOME@}\n          - B: ${@A@}/${@HOME\n          prepend_path:\n          - PATH: ${@}/bin\n"}, "open-variable environments.yaml:10 open-variable environments.yaml:12"},
		{"views of the image", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  views: {modules: , spack: , a: }\n", "modules.yaml": "modules: {default: {enable: [tcl]}}\n"}, "view-replaced environments.yaml:4 view-replaced environments.yaml:4"},
		{"no modules", v2, files{"environments.yaml": "app:\n  compiler: [gcc]\n  specs: []\n  views: {modules: }\n"}, ""},
		{"empty duplicate", v2, files{"environments.yaml": v2["environments.yaml"] + "  packages:\n  packages: [perl]\n"}, "duplicate-key environments.yaml:11"},
		{"mirrors", v2, files{"mirrors.yaml": "x"}, "ignored-file mirrors.yaml:0"},
		{"repo without packages", v2, files{"repo/repo.yaml": "x", "extra": "y"}, "ignored-file extra:0 ignored-file repo:0"},
		{"script with spack files", script, files{"packages.yaml": "x", "post-install": "{{"}, "ignored-file packages.yaml:0 ignored-file post-install:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, w := range mustLoad(t, c.recipe.with(c.changes)).Warnings {
				got = append(got, w.Rule, filepath.Base(w.File)+":"+strconv.Itoa(w.Line))
				if w.Severity != fault.Warning {
					t.Errorf("severity of %v", w)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	views := strings.Repeat("      - perl\n", 1500)
	_, err := load(t, v2.with(files{"environments.yaml": "a:\n  compiler: [gcc]\n  specs: []\n  views:\n    v:\n      exclude:\n" + views + "      lnk: all\n"}))
	var problems fault.Problems
	if !errors.As(err, &problems) || len(problems) != 1001 || problems[0].Message != "unknown key 'lnk' in 'a.views.v'" {
		t.Errorf("%d problems, first %v", len(problems), problems[0])
	}
	if last := problems[len(problems)-1]; last.Message != "501 more problems" {
		t.Errorf("last: %v", last)
	}
}

func TestNoSuchRecipe(t *testing.T) {
	dir := t.TempDir()
	if _, err := recipe.Load(t.Context(), filepath.Join(dir, "none")); fault.KindOf(err) != fault.NotFound {
		t.Errorf("missing directory: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := recipe.Load(t.Context(), file); fault.KindOf(err) != fault.Invalid {
		t.Errorf("file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := recipe.Load(ctx, v1.write(t)); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLinksOutOfTheRecipeAreRefused(t *testing.T) {
	outside := files{"secret": "name: leaked\n"}.write(t)
	for name, link := range map[string]string{"config.yaml": filepath.Join(outside, "secret"), "data": outside, "loop": "loop", "up": "."} {
		dir := v2.with(files{name: ""}).write(t)
		if err := os.Symlink(link, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		_, err := recipe.Load(t.Context(), dir)
		if fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "leaked") {
			t.Errorf("%s -> %s: %v", name, link, err)
		}
	}
}

func TestLinksInsideTheRepositoryAreFollowed(t *testing.T) {
	repo := t.TempDir()
	if err := os.Mkdir(filepath.Join(repo, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := filepath.Join(repo, "a")
	if err := os.Rename(v2.write(t), a); err != nil {
		t.Fatal(err)
	}
	b := filepath.Join(repo, "b")
	if err := os.Mkdir(b, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range v2 {
		if err := os.Symlink("../a/"+name, filepath.Join(b, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := recipe.Load(t.Context(), b); err != nil {
		t.Error(err)
	}
}

func ptr(s string) *string { return &s }

func TestVersion1(t *testing.T) {
	r := mustLoad(t, v1.with(files{
		"compilers.yaml": v1["compilers.yaml"] + "llvm:\n  requires: gcc@11.3\n  specs: [nvhpc@22.11, llvm@16]\n",
		"environments.yaml": `app:
  compiler:
    - {toolchain: llvm, spec: nvhpc@22.11}
    - {toolchain: gcc, spec: gcc@12}
  specs: [zlib, hdf5+mpi]
  mpi: {spec: cray-mpich@8.1, gpu: cuda}
  unify: when_possible
  deprecated: true
  variants: [+mpi]
  packages: [perl]
  views:
    default:
    develop:
      link: all
      exclude: []
      select: [zlib]
      projections: {all: '{name}'}
      uenv: {add_compilers: false, prefix_paths: {PATH: [bin, sbin], LD_LIBRARY_PATH: [lib]}}
plain:
  compiler: [{toolchain: gcc, spec: gcc@12}]
  specs: []
  mpi: false
`,
		"repo/packages/x/package.py": "x", "extra/reframe.yaml": "x", "pre-install": "echo {{env.build}}", "packages.yaml": "packages: {zlib: {}}",
	}))
	if r.Version != 1 || r.Builder != "spack" || r.Name != "app" || r.HasDescription || r.Store != "/user-environment" || r.Modules || r.ModulesFile != nil {
		t.Errorf("%+v", r)
	}
	if !reflect.DeepEqual(r.Compilers, recipe.Compilers{Bootstrap: "gcc@11.3", GCC: []string{"gcc@11.3", "gcc@12"}, LLVM: []string{"nvhpc@22.11", "llvm@16"}, LLVMRequires: "gcc@11.3"}) {
		t.Errorf("%+v", r.Compilers)
	}
	e := r.Environments[0]
	if !reflect.DeepEqual(e.Toolchains, []recipe.Toolchain{{"llvm", "nvhpc@22.11"}, {"gcc", "gcc@12"}}) || *e.MPI != (recipe.MPI{Spec: "cray-mpich@8.1", GPU: "cuda"}) ||
		e.Unify != "when_possible" || !e.Deprecated || e.Variants[0] != "+mpi" || e.Packages[0] != "perl" || e.Duplicates != "" || e.Prefer != nil {
		t.Errorf("%+v", e)
	}
	if d := e.Views[0]; d.Name != "default" || d.Link != "roots" || !d.AddCompilers || d.HasExclude || d.Projections != nil {
		t.Errorf("%+v", d)
	}
	w := e.Views[1]
	if w.Link != "all" || !w.HasExclude || len(w.Exclude) != 0 || !w.HasSelect || w.Projections.Len() != 1 || w.AddCompilers ||
		!reflect.DeepEqual(w.PrefixPaths, []recipe.PrefixPath{{"PATH", []string{"bin", "sbin"}}, {"LD_LIBRARY_PATH", []string{"lib"}}}) {
		t.Errorf("%+v", w)
	}
	if p := r.Environments[1]; p.MPI != nil || p.Unify != true {
		t.Errorf("%+v", p)
	}
	if r.PackageRepo != filepath.Join(r.Dir, "repo") || r.Extra == "" || r.PreInstall == nil || r.PostInstall != nil || r.Packages.Get("zlib") == nil {
		t.Errorf("%+v", r)
	}
	if got, _ := yamlpos.MarshalJSON(r.Spack.Block, 0); string(got) != `{"repo": "https://example.org/spack.git", "commit": "v0.23.1"}`+"\n" {
		t.Errorf("%s", got)
	}
}

// The recipe of the public talk of 2024 has gpu beside mpi in some renderings.
func TestSlideDialect(t *testing.T) {
	r := mustLoad(t, v1.with(files{
		"compilers.yaml": "bootstrap: {spec: gcc@11}\ngcc: {specs: [gcc@11]}\nllvm: {requires: gcc@11, specs: [nvhpc@22.11]}\n",
		"environments.yaml": `nvhpc-env:
  compiler:
    - {toolchain: llvm, spec: nvhpc@22.11}
    - {toolchain: gcc,  spec: gcc@11}
  mpi: {spec: cray-mpich}
  gpu: cuda
  unify: true
  specs: [cmake%gcc, cuda@11.8, 'libxc@5.2.3%nvhpc~cuda', patchelf%gcc]
  views:
    default:
    develop: {exclude: ['cmake']}
`,
	}))
	if e := r.Environments[0]; e.MPI.GPU != "cuda" || len(e.Views) != 2 {
		t.Errorf("%+v", e)
	}
	if len(r.Warnings) != 1 || r.Warnings[0].Rule != "misplaced-key" {
		t.Errorf("%v", r.Warnings)
	}
}

func TestVersions2And3(t *testing.T) {
	environments := `app:
  compiler: [nvhpc, gcc]
  specs: [zlib]
  unify: no
  network: {mpi: ' cray-mpich@9 ', specs: null}
  duplicates: {strategy: full}
  prefer: ['%gcc']
  views:
    default:
      uenv:
        env_vars:
          set: [{A: $@mount@/x}, {B: null}, {PATH: null}]
          prepend_path: [{PATH: /a}, {PATH: /b}]
          append_path: [{PYTHONPATH: '${@HOME@}/x'}]
`
	for _, c := range []struct {
		recipe    files
		compilers string
		want      []recipe.Compiler
	}{
		{v2, "nvhpc: {version: '24.1'}\ngcc: {version: '13'}\nllvm:\n", []recipe.Compiler{{Name: "gcc", Version: "13"}, {Name: "nvhpc", Version: "24.1"}}},
		{v3, "nvhpc: {version: '24.1', spec: +mpi}\ngcc: {version: system}\n", []recipe.Compiler{{Name: "gcc", System: true}, {Name: "nvhpc", Version: "24.1", Spec: ptr("+mpi")}}},
	} {
		r := mustLoad(t, c.recipe.with(files{"compilers.yaml": c.compilers, "environments.yaml": environments, "modules.yaml": "modules: {default: {tcl: {}}}"}))
		if !reflect.DeepEqual(r.Compilers.V2, c.want) || !r.Modules {
			t.Errorf("%+v", r)
		}
		e := r.Environments[0]
		if e.Unify != false || e.Network.MPI != "cray-mpich@9" || e.Network.Specs != nil || e.Duplicates != "full" || !reflect.DeepEqual(e.Prefer, []string{"%gcc"}) || e.Compilers[0] != "nvhpc" {
			t.Errorf("%+v", e)
		}
		want := recipe.EnvVars{
			Set:         []recipe.EnvVar{{"A", ptr("$@mount@/x")}, {"B", nil}, {"PATH", nil}},
			PrependPath: []recipe.EnvVar{{"PATH", ptr("/a")}, {"PATH", ptr("/b")}},
			AppendPath:  []recipe.EnvVar{{"PYTHONPATH", ptr("${@HOME@}/x")}},
		}
		if !reflect.DeepEqual(e.Views[0].EnvVars, want) {
			t.Errorf("%+v", e.Views[0].EnvVars)
		}
		if p := r.Spack.Packages; len(p) != 1 || p[0].Name != "builtin" || p[0].Path != "repos/spack_repo/builtin" || *p[0].Commit != "v2025.07.0" {
			t.Errorf("%+v", p)
		}
	}
}

// Upstream rejects the map form in version 3, through a fault of its schema.
func TestSeveralPackageRepositories(t *testing.T) {
	const spack = "spack:\n  repo: r\n  packages:\n    zeta: {repo: a, commit: v1.0.0, path: p/q}\n    alpha: {repo: b, commit: v2.0.0}\n"
	for version, f := range map[string]files{"2": v2, "3": v3} {
		r := mustLoad(t, f.with(files{"config.yaml": "name: app\nversion: " + version + ".0\n" + spack}))
		want := []recipe.PackageRepository{{Name: "zeta", Repo: "a", Path: "p/q", Commit: ptr("v1.0.0")}, {Name: "alpha", Repo: "b", Path: "repos/spack_repo/alpha", Commit: ptr("v2.0.0")}}
		if !reflect.DeepEqual(r.Spack.Packages, want) || r.Spack.Commit != nil {
			t.Errorf("%+v", r.Spack)
		}
	}
	r := mustLoad(t, v3.with(files{"config.yaml": "name: a\nversion: 3\nspack: {repo: r, packages: {x: {repo: b}}}\ncleanup: runtime\n"}))
	if got, _ := yamlpos.MarshalJSON(r.Spack.Block, 0); string(got) != `{"repo": "r", "packages": {"x": {"repo": "b", "commit": null}}, "commit": null}`+"\n" || r.Cleanup != "runtime" {
		t.Errorf("%s", got)
	}
}

func TestScript(t *testing.T) {
	r := mustLoad(t, script.with(files{
		"config.yaml": "builder: script\nname: tool\ndescription: a tool\nstore: /opt/tool\ndefault-view: run\n",
		"environments.yaml": `views:
  run:
    description: run it
    prefix_paths: {PATH: [bin, .], TOOL_PLUGINS: [lib/plugins]}
    env_vars: {set: [{TOOL_HOME: $@mount@}], prepend_path: [{MANPATH: $@mount@/man}]}
  empty:
`,
		"extra/test": "#!/bin/sh\n",
	}))
	if r.Builder != recipe.BuilderScript || r.Version != 0 || r.Store != "/opt/tool" || r.DefaultView != "run" || !r.HasDescription || r.Build.Text != "#!/bin/sh\n" || r.Extra == "" {
		t.Errorf("%+v", r)
	}
	views := r.Environments[0].Views
	if len(views) != 2 || views[0].Description != "run it" || !reflect.DeepEqual(views[0].Paths, []recipe.PrefixPath{{"PATH", []string{"bin", "."}}, {"TOOL_PLUGINS", []string{"lib/plugins"}}}) ||
		len(views[0].EnvVars.Set) != 1 || views[1].Name != "empty" {
		t.Errorf("%+v", views)
	}
	if r := mustLoad(t, script.with(files{"environments.yaml": ""})); len(r.Environments) != 0 {
		t.Errorf("%+v", r.Environments)
	}
	dir := script.write(t)
	if err := os.Chmod(filepath.Join(dir, "build"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := recipe.Load(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "chmod +x") {
		t.Errorf("%v", err)
	}
}

func TestHookRender(t *testing.T) {
	vars := map[string]string{"mount": "/user-environment", "build": "/b"}
	for in, want := range map[string]string{
		"echo {{ env.mount }}/{{env.build}}\n": "echo /user-environment//b\n",
		"a\r\n{{  env . mount }}":              "a\n/user-environment\n",
		"":                                     "\n",
		"x\n\n":                                "x\n\n",
		"${#a[@]} { {x} }}":                    "${#a[@]} { {x} }}\n",
	} {
		got, err := recipe.Hook{Path: "h", Text: in}.Render(vars)
		if strings.Contains(in, "{#") {
			if err == nil { // bash's ${#…} begins a comment of the template language
				t.Errorf("%q was rendered as %q", in, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
	_, err := recipe.Hook{Path: "h", Text: "\n é {{ env.spack }} {{- env.mount }}"}.Render(vars)
	want := "h:2:4: unknown variable 'env.spack' (there is build, mount)\n" +
		"h:2:20: template syntax '{{' is not supported (only {{ env.X }} is replaced, X being build, mount)"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestIsMoving(t *testing.T) {
	for reference, want := range map[string]bool{
		"develop": true, "main": true, "releases/v0.23": true, "refs/heads/x": true,
		"v0.23.1": false, "0.23.1": false, "6a57993e8e0ce36d97a91e8dc40d1c0fa0de1d23": false, "develop-2024-05-12": false,
	} {
		if recipe.IsMoving(reference) != want {
			t.Errorf("IsMoving(%s) is not %v", reference, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, r := range []files{v1, v2, v3, script} {
		f.Add(r["config.yaml"], r["compilers.yaml"], r["environments.yaml"], "echo {{ env.mount }}")
	}
	f.Add("version: 3\nspack: {packages: {a: 1}}", "gcc: []", "a: {views: {x: {uenv: {env_vars: {set: [1, {a: 2}]}}}}}", "{{")
	dir := f.TempDir() // one for all: a worker runs one input at a time
	f.Fuzz(func(t *testing.T, config, compilers, environments, hook string) {
		texts := files{"config.yaml": config, "compilers.yaml": compilers, "environments.yaml": environments, "pre-install": hook, "build": hook, "modules.yaml": compilers}
		for name, text := range texts {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		r, err := recipe.Load(t.Context(), dir)
		switch {
		case err != nil && fault.KindOf(err) != fault.Invalid:
			t.Errorf("kind of %v", err)
		case err != nil && strings.Contains(err.Error(), "cannot be checked"):
			t.Error(err)
		case err == nil && r.Name == "":
			t.Error("a recipe without a name was accepted")
		}
	})
}
