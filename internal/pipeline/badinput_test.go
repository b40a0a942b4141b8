package pipeline_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pipeline"
)

// soundFiles are a recipe of each version with a cluster, with which nothing is
// wrong.
func soundFiles() map[string]string {
	return map[string]string{
		"v1/config.yaml":       "name: app\nspack: {repo: 'https://example.org/s', commit: v0.23.1}\nmodules: false\n",
		"v1/compilers.yaml":    "bootstrap: {spec: gcc@11.3}\ngcc: {specs: [gcc@12]}\n",
		"v1/environments.yaml": "app:\n  compiler: [{toolchain: gcc, spec: gcc@12}]\n  specs: [zlib]\n  mpi: {spec: cray-mpich@8.1}\n  views: {default: {}}\n",

		"v2/config.yaml":       "name: app\nversion: 2\nspack: {repo: 'https://example.org/s', commit: v1.0.1, packages: {repo: 'https://example.org/p', commit: v2025.07.0}}\n",
		"v2/compilers.yaml":    "gcc: {version: '13'}\n",
		"v2/environments.yaml": "app:\n  compiler: [gcc]\n  specs: [zlib]\n  network: {mpi: cray-mpich@9}\n  views: {default: {}}\n",

		"v3/config.yaml":       "name: app\nversion: 3\nspack: {repo: 'https://example.org/s', commit: v1.2.0, packages: {repo: 'https://example.org/p', commit: v2025.07.0}}\n",
		"v3/compilers.yaml":    "gcc: {version: '13'}\n",
		"v3/environments.yaml": "app:\n  compiler: [gcc]\n  specs: [zlib]\n  network: {mpi: cray-mpich@9}\n  views: {default: {}}\n",

		"old/packages.yaml":  "packages: {}\n",
		"old/compilers.yaml": "compilers: []\n",
		"new/packages.yaml":  "packages:\n  gcc: {externals: [{spec: gcc@12.3, prefix: /usr}]}\n",
		"new/network.yaml":   "mpi:\n  cray-mpich: {specs: [libfabric]}\n",
		"cache.yaml":         "root: /\nkey: null\n",
		"mirrors.yaml":       "sourcecache: {path: /tmp}\n",
	}
}

// configure configures a recipe of what is in root.
func configure(t *testing.T, root, recipe, mirrors string) (string, error) {
	t.Helper()
	cluster := "new"
	if recipe == "v1" {
		cluster = "old"
	}
	out := filepath.Join(t.TempDir(), "tree")
	o := pipeline.BuildOptions{Recipe: filepath.Join(root, recipe), Cluster: filepath.Join(root, cluster), Options: build.Options{Offline: true}}
	if mirrors != "" {
		o.Mirrors = filepath.Join(root, mirrors)
	}
	_, err := pipeline.Configure(t.Context(), pipeline.ConfigureOptions{Build: o, Out: out})
	return out, err
}

func TestSoundFilesAreConfigured(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, soundFiles())
	for recipe, mirrors := range map[string]string{"v1": "cache.yaml", "v2": "mirrors.yaml", "v3": "mirrors.yaml"} {
		if _, err := configure(t, root, recipe, mirrors); err != nil {
			t.Errorf("%s: %v", recipe, err)
		}
	}
}

// TestConfigureTellsNoCredentials configures recipes whose URLs hold a token.
func TestConfigureTellsNoCredentials(t *testing.T) {
	const secret = "s3cr3t"
	for _, recipe := range []string{"v1", "v2"} {
		root := t.TempDir()
		files := soundFiles()
		config := strings.ReplaceAll(files[recipe+"/config.yaml"], "https://", "https://ci:"+secret+"@")
		files[recipe+"/config.yaml"] = config
		writeTree(t, root, files)
		cluster := map[string]string{"v1": "old", "v2": "new"}[recipe]
		done, err := pipeline.Configure(t.Context(), pipeline.ConfigureOptions{Out: filepath.Join(t.TempDir(), "tree"), Build: pipeline.BuildOptions{
			Recipe: filepath.Join(root, recipe), Cluster: filepath.Join(root, cluster),
			Options: build.Options{Offline: true, Events: func(e event.Event) {
				if strings.Contains(e.Message, secret) {
					t.Errorf("%s: an event says %q", recipe, e.Message)
				}
			}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(done)
		if err != nil || strings.Contains(string(text), secret) || !strings.Contains(config, secret) || len(done.Clones) == 0 {
			t.Errorf("%s: %v %s", recipe, err, text)
		}
	}
}

// Each of stackinator's refusals is one of ours, which says more: a place in a
// file, where there is one. Nothing is written then.
func TestWhatUpstreamRefusesIsRefused(t *testing.T) {
	const none = "\x00" // the file is left out
	env := func(view string) string {
		return "app:\n  compiler: [gcc]\n  specs: [zlib]\n  views:\n    " + view + "\n"
	}
	config := func(more string) string { return soundFiles()["v2/config.yaml"] + more }
	for _, c := range []struct {
		upstream string // its words
		recipe   string
		mirrors  string
		files    map[string]string
		want     string // a line of ours
	}{
		{"The system configuration path 'p' does not exist", "v2", "", map[string]string{"new/packages.yaml": none, "new/network.yaml": none}, `the cluster configuration 'new' does not exist`},
		{"The recipe path 'p' does not exist", "gone", "", nil, `the recipe directory 'gone' does not exist`},
		{"The recipe path 'p' does not contain config.yaml", "v2", "", map[string]string{"v2/config.yaml": none}, `v2/config.yaml: the file is missing`},
		{"incompatible uenv recipe version", "v2", "", map[string]string{"v2/config.yaml": strings.Replace(config(""), "version: 2", "version: 9", 1)}, `v2/config.yaml:2:10: invalid recipe version '9': must be 1, 2 or 3`},
		{"ValidationError in 'Schema for Spack Stack config.yaml recipe file'", "v2", "", map[string]string{"v2/config.yaml": config("stor: /x\n")}, `v2/config.yaml:4:1: unknown key 'stor' \(did you mean 'store'\?\)`},
		{"The recipe path 'p' does not contain compilers.yaml", "v1", "", map[string]string{"v1/compilers.yaml": none}, `v1/compilers.yaml: the file is missing`},
		{"ValidationError in '... compilers.yaml recipe file'", "v1", "", map[string]string{"v1/compilers.yaml": "bootstrap: {spec: gcc@11.3}\ngcc: {specs: [clang@12]}\n"}, `v1/compilers.yaml:2:15: .*clang@12`},
		{"The recipe path 'p' does not contain environments.yaml", "v3", "", map[string]string{"v3/environments.yaml": none}, `v3/environments.yaml: the file is missing`},
		{"conflicting modules configuration detected", "v2", "", map[string]string{"v2/config.yaml": config("modules: true\n")}, `v2/config.yaml:4:10: conflicting modules configuration: .* modules.yaml is missing`},
		{"Invalid module type 'x' in modules.yaml. Supported types: lmod, tcl", "v3", "", map[string]string{"v3/modules.yaml": "modules: {default: {enable: [x]}}\n"}, `v3/modules.yaml:1:30: .*'tcl' or 'lmod', not 'x'`},
		{"The package repo name 'alps' is reserved", "v3", "", map[string]string{"v3/config.yaml": "name: a\nversion: 3\nspack:\n  repo: r\n  packages:\n    alps: {repo: r}\n"}, `v3/config.yaml:6:5: the name 'alps' is reserved`},
		{"The default-view 'x' is not the name of a view defined in environments.yaml", "v2", "", map[string]string{"v2/config.yaml": config("default-view: defalt\n")}, `v2/config.yaml:4:15: .*'defalt'.*default`},
		{"A view named 'x' is defined more than once.", "v2", "", map[string]string{"v2/environments.yaml": env("v: {}") + "two:\n  compiler: [gcc]\n  specs: [zlib]\n  views: {v: {}}\n"}, `v2/environments.yaml:9:11: .*'v'`},
		{"X is not a supported MPI: try one of [...].", "v3", "", map[string]string{"v3/environments.yaml": "app: {compiler: [gcc], specs: [zlib], network: {mpi: mpich}}\n"}, `v3/environments.yaml:1:54: mpich is not a supported MPI of cluster 'new' \(try one of cray-mpich\)`},
		{"X is not a valid MPI spec", "v2", "", map[string]string{"v2/environments.yaml": "app: {compiler: [gcc], specs: [zlib], network: {mpi: '@8'}}\n"}, `v2/environments.yaml:1:54: .*@8`},
		{"Unsupported mpi: X", "v1", "", map[string]string{"v1/environments.yaml": "app: {compiler: [{toolchain: gcc, spec: gcc@12}], specs: [zlib], mpi: {spec: lam}}\n"}, `v1/environments.yaml:1:78: .*lam`},
		{"KeyError of a compiler that is not defined", "v3", "", map[string]string{"v3/environments.yaml": "app: {compiler: [llvm], specs: [zlib]}\n"}, `v3/environments.yaml:1:18: .*llvm`},
		{"IndexError of no compilers", "v3", "", map[string]string{"v3/environments.yaml": "app: {compiler: [], specs: [zlib]}\n"}, `v3/environments.yaml:1:17: `},
		{"X is a prefix variable", "v2", "", map[string]string{"v2/environments.yaml": env("v: {uenv: {env_vars: {set: [{PATH: /x}]}}}")}, `v2/environments.yaml:5:34: PATH is a search path .*prepend_path`},
		{"X is not a known prefix path variable", "v3", "", map[string]string{"v3/environments.yaml": env("v: {uenv: {env_vars: {append_path: [{FOO: /x}]}}}")}, `v3/environments.yaml:5:42: .*FOO`},
		{`In view "v": "$@x@" variable cannot be expanded`, "v2", "", map[string]string{"v2/environments.yaml": env("v: {uenv: {env_vars: {set: [{A: '$@x@'}]}}}")}, `v2/environments.yaml:5:37: .*\$@x@`},
		{"The system packages.yaml file does not provide gcc", "v2", "", map[string]string{"new/packages.yaml": "packages: {}\n"}, `new/packages.yaml: .*gcc`},
		{"spack minimum version is v0.21 - recipe uses <commit>", "v1", "", map[string]string{"v1/config.yaml": "name: app\nspack:\n  repo: r\n  commit: v0.20.1\nmodules: false\n"}, `v1/config.yaml:4:11: .*v0.21 - recipe uses v0.20.1`},
		{"Unsupported mirrors.yaml file in recipe.", "v1", "", map[string]string{"v1/mirrors.yaml": "{}\n"}, `v1/mirrors.yaml: a mirrors.yaml in the recipe is not supported`},
		{"A 'mirrors.yaml' in the system configuration is not supported.", "v2", "", map[string]string{"new/mirrors.yaml": "{}\n"}, `new/mirrors.yaml: a mirrors.yaml in the cluster configuration is not supported`},
		{"invalid system-provided package repository", "v2", "", map[string]string{"new/repos.yaml": "repos:\n- ../gone\n"}, `new/repos.yaml:2:3: '../gone' is not a package repository`},
		{"The mirror configuration file 'f' does not exist.", "v2", "gone.yaml", nil, `gone.yaml.*does not exist`},
		{"The source cache path 'p' is not absolute", "v3", "mirrors.yaml", map[string]string{"mirrors.yaml": "sourcecache: {path: here}\n"}, `mirrors.yaml:1:21: .*here`},
		{"The bootstrap mirror directory 'd' does not exist", "v3", "mirrors.yaml", map[string]string{"mirrors.yaml": "bootstrap: {url: /no/such/place}\n"}, `mirrors.yaml:1:18: .*/no/such/place`},
		{"Key for mirror 'n' is not valid", "v2", "mirrors.yaml", map[string]string{"mirrors.yaml": "buildcache: {url: 'file:///tmp', private_key: '!'}\n"}, `mirrors.yaml:1:47: `},
		{"The build cache path 'p' is not absolute", "v1", "cache.yaml", map[string]string{"cache.yaml": "root: here\nkey: null\n"}, `cache.yaml:1:7: .*here`},
		{"The build cache path 'p' does not exist", "v1", "cache.yaml", map[string]string{"cache.yaml": "root: /no/such/place\nkey: null\n"}, `cache.yaml:1:7: .*/no/such/place`},
		{"a template that Jinja refuses", "v2", "", map[string]string{"v2/post-install": "#!/bin/sh\necho {{ env.mnt }}\n"}, `v2/post-install:2:\d+: .*mnt`},
	} {
		t.Run(c.upstream, func(t *testing.T) {
			files := soundFiles()
			maps.Copy(files, c.files)
			maps.DeleteFunc(files, func(_, text string) bool { return text == none })
			root := t.TempDir()
			writeTree(t, root, files)
			out, err := configure(t, root, c.recipe, c.mirrors)
			if err == nil {
				t.Fatal("not refused")
			}
			if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.NotFound {
				t.Errorf("kind %v", kind)
			}
			text := strings.ReplaceAll(err.Error(), root+"/", "")
			if !regexp.MustCompile(`(?m)^.*` + c.want).MatchString(text) {
				t.Errorf("got\n%s\nwant %s", text, c.want)
			}
			if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was written: %v", err)
			}
		})
	}
}

// What is wrong in several files, also of recipe and cluster, is told together.
func TestAllIsToldAtOnce(t *testing.T) {
	root := t.TempDir()
	files := soundFiles()
	files["v2/config.yaml"] = "nmae: x\n" + files["v2/config.yaml"]
	files["v2/compilers.yaml"] = "gcc: {version: 13}\n"
	files["v2/post-install"] = "{% if x %}\n"
	files["new/packages.yaml"] = "pakages: {}\n"
	writeTree(t, root, files)
	r := lint(t, pipeline.LintOptions{Paths: []string{filepath.Join(root, "v2"), filepath.Join(root, "new")}, WorkDir: root})
	var places []string
	for _, p := range r.Problems.Errors() {
		places = append(places, fmt.Sprintf("%s:%d", p.File, p.Line))
	}
	want := "new/packages.yaml:1 v2/compilers.yaml:1 v2/config.yaml:1 v2/post-install:1"
	if got := strings.Join(places, " "); got != want {
		t.Errorf("got %s\nwant %s\n%v", got, want, r.Problems)
	}
}

// Files that are hostile, or came from strange editors.
func TestHostileFiles(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	sound := soundFiles()["v2/environments.yaml"]
	for _, c := range []struct {
		name, text string
		want       string // "" if the file is all right
	}{
		{"CRLF", strings.ReplaceAll(sound, "\n", "\r\n"), ""},
		{"BOM", "\ufeff" + sound, ""},
		{"anchors", "x: &x\n  compiler: [gcc]\n  specs: [zlib]\napp:\n  <<: *x\n", ""},
		{"bomb of aliases", bomb, `environments.yaml:\d+:\d+: .*alias`},
		{"recursion", "app: &a\n  compiler: [gcc]\n  specs: [zlib]\n  views: *a\n", `environments.yaml:4:\d+: `},
		{"ten megabytes", sound + strings.Repeat("# 0123456789\n", 900_000), `environments.yaml.*(larger|bytes)`},
		{"deep", strings.Repeat("[", 20_000), `environments.yaml:1:\d+: `},
		{"duplicate key", sound + "app: {}\n", `environments.yaml:6:1: duplicate key 'app', first given at 1:1`},
		{"tab", "app:\n\tcompiler: [gcc]\n", `environments.yaml:2:\d+: .*tab`},
		{"no UTF-8", "app: \xff\xfe\n", `environments.yaml.*UTF-8`},
		{"python tag", "app: !!python/object/apply:os.system ['touch x']\n", `environments.yaml:1:6: `},
		{"NUL", "app:\x00\n", `environments.yaml:`},
		{"two documents", sound + "---\n" + sound, `environments.yaml:7:1: a second document`},
		{"a list", "- app\n", `environments.yaml:1:1: .*mapping`},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := soundFiles()
			files["v2/environments.yaml"] = c.text
			root := t.TempDir()
			writeTree(t, root, files)
			r := lint(t, pipeline.LintOptions{Paths: []string{filepath.Join(root, "v2")}, WorkDir: root})
			text := r.Problems.Errors().Error()
			if c.want == "" && text != "" || !regexp.MustCompile(c.want).MatchString(text) {
				t.Errorf("got %.500s\nwant %s", text, c.want)
			}
			if len(text) > 100_000 {
				t.Errorf("%d bytes of messages", len(text))
			}
		})
	}
}

// Links may not lead out of the recipe, nor in circles.
func TestHostileLinks(t *testing.T) {
	for _, c := range []struct{ name, link, target string }{
		{"a loop", "v2/loop", "loop"},
		{"a circle of directories", "v2/extra/again", ".."},
		{"a package outside", "v2/repo/packages/app", "../../../../../etc"},
		{"a file outside", "v2/extra/passwd", "/etc/passwd"},
		{"a document outside", "v2/packages.yaml", "/etc/hostname"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			writeTree(t, root, soundFiles())
			link := filepath.Join(root, c.link)
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(c.target, link); err != nil {
				t.Fatal(err)
			}
			out, err := configure(t, root, "v2", "")
			if fault.KindOf(err) != fault.Invalid {
				t.Errorf("configured: %v", err)
			}
			if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was written: %v", err)
			}
			r := lint(t, pipeline.LintOptions{Paths: []string{filepath.Join(root, "v2")}, WorkDir: root})
			if r.Errors == 0 {
				t.Error("lint finds nothing")
			}
		})
	}
}
