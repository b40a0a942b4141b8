package stack_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

func TestPackagesMergeShallowly(t *testing.T) {
	cluster := files{
		"packages.yaml": "packages:\n  gcc: {externals: [{spec: gcc@12, prefix: /usr}]}\n  libfabric: {buildable: false}\n  slurm: {buildable: false, version: [x]}\n  same: {buildable: true}\n",
		"network.yaml":  "packages:\n  libfabric: {require: fabrics=cxi}\n",
	}
	own := files{"packages.yaml": "packages:\n  slurm:\n    version: [y]\n  mine: {buildable: true}\n  same: {buildable: true}\n"}
	const merged = "libfabric: {require: fabrics=cxi}, slurm: {version: [y]}, mine: {buildable: true}, same: {buildable: true}"
	const gcc = "gcc: {externals: [{spec: gcc@12, prefix: /usr}]}"

	in := input(t, recipeV2.with(own), cluster)
	tree, warnings := render(t, in)
	wantYAML(t, at(t, tree, "config/packages.yaml"), "packages: {"+merged+"}")
	wantYAML(t, at(t, tree, "compilers/gcc/packages.yaml"), "packages: {"+gcc+", libfabric: {buildable: false}, slurm: {version: [y]}, mine: {buildable: true}, same: {buildable: true}}")
	if len(warnings) != 1 || warnings[0].Line != 2 || warnings[0].Rule != "package-replaced" || warnings[0].Severity != fault.Warning ||
		!strings.Contains(warnings[0].Message, "'slurm'") {
		t.Errorf("warnings %+v", warnings)
	}
	clusterFile := filepath.Join(in.Cluster.Dir, "packages.yaml")
	want := []stack.Replacement{
		{Package: "libfabric", By: filepath.Join(in.Cluster.Dir, "network.yaml"), Over: clusterFile},
		{Package: "slurm", By: filepath.Join(in.Recipe.Dir, "packages.yaml"), Over: clusterFile},
	}
	if !slices.Equal(tree.Replaced, want) {
		t.Errorf("replaced %+v", tree.Replaced)
	}

	tree, _ = render(t, input(t, recipeV3.with(own), cluster))
	wantYAML(t, at(t, tree, "config/packages.yaml"), "packages: {"+gcc+", "+merged+"}")
	wantYAML(t, at(t, tree, "generate-config/packages.yaml"), "packages: {"+merged+"}")

	tree, warnings = render(t, input(t, recipeV1.with(own), clusterV1))
	wantYAML(t, at(t, tree, "config/packages.yaml"), "packages: {slurm: {version: [y]}, mine: {buildable: true}, same: {buildable: true}}")
	if len(warnings) != 1 {
		t.Errorf("warnings %+v", warnings)
	}
}

func TestClusterRefused(t *testing.T) {
	noGCC := files{"packages.yaml": "packages: {slurm: {buildable: false}}\n"}
	for _, r := range []files{recipeV2, recipeV3} {
		p := refused(t, input(t, r, noGCC))[0]
		if !strings.HasSuffix(p.File, "daint/packages.yaml") || !strings.Contains(p.Message, "does not provide gcc") {
			t.Errorf("%+v", p)
		}
	}
}

func TestPackageRepositoryPathStaysInside(t *testing.T) {
	in := input(t, recipeV3, clusterV2)
	in.Recipe.Spack.Packages[0].Path = "../../etc"
	if p := refused(t, in)[0]; !strings.Contains(p.Message, "'../../etc'") || !strings.HasSuffix(p.File, "config.yaml") {
		t.Errorf("%+v", p)
	}
}

func TestOldSpackIsRefused(t *testing.T) {
	r := recipeV1.with(files{"config.yaml": strings.Replace(recipeV1["config.yaml"], "releases/v0.23", "v0.20.1", 1)})
	dir := r.write(t, t.TempDir())
	in := input(t, recipeV1, clusterV1)
	commit := "v0.20.1"
	in.Recipe.Spack.Commit, in.Recipe.Dir = &commit, dir
	p := refused(t, in)[0]
	if !strings.Contains(p.Message, "spack minimum version is v0.21 - recipe uses v0.20.1") {
		t.Errorf("%+v", p)
	}
	in.Develop = true
	if tree, _ := render(t, in); tree.SpackVersion != "0.24" {
		t.Errorf("version %s", tree.SpackVersion)
	}
}

func TestSpackVersion(t *testing.T) {
	for _, c := range []struct {
		recipe       files
		commit, want string
	}{
		{recipeV1, "releases/v0.23", "0.23"}, {recipeV1, "v0.21.2", "0.21"}, {recipeV1, "develop", "0.24"},
		{recipeV1, "2bfcc69fa870d3c6919be87593f22647981b648a", "0.24"}, {recipeV1, "", "0.24"},
		{recipeV2, "releases/v1.0", "1.0"}, {recipeV2, "v1.1.2", "1.1"}, {recipeV2, "1.2", "1.2"}, {recipeV3, "main", "1.2"},
		{recipeV3, "develop", "1.2"}, {recipeV2, "2bfcc69fa870d3c6919be87593f22647981b648a", "1.1"}, {recipeV3, "", "1.2"},
	} {
		in := input(t, c.recipe, clusterFor(c.recipe))
		in.Recipe.Spack.Commit = nil
		if c.commit != "" {
			in.Recipe.Spack.Commit = &c.commit
		}
		if tree, _ := render(t, in); tree.SpackVersion != c.want {
			t.Errorf("version %d, %q: Spack %s, want %s", in.Recipe.Version, c.commit, tree.SpackVersion, c.want)
		}
	}
}

// Upstream's version 2 flow needs the installer of older Spack.
func TestInstallerOfSpack12(t *testing.T) {
	in := input(t, recipeV2, clusterV2)
	if tree, _ := render(t, in); hasFile(tree, "config/config.yaml") {
		t.Error("config.yaml without need")
	}
	in.Develop = true
	in.Mirrors = &site.Mirrors{SourceCache: "/cache"}
	tree, _ := render(t, in)
	wantYAML(t, at(t, tree, "config/config.yaml"), "config: {source_cache: /cache, installer: old}")
}

func TestMirrors(t *testing.T) {
	entry := yamlpos.NewMap("source", false, "binary", true, "fetch", yamlpos.NewMap("url", "file:///c"), "push", yamlpos.NewMap("url", "file:///c"))
	source := yamlpos.NewMap("source", true, "binary", false, "fetch", yamlpos.NewMap("url", "https://s"), "push", nil)
	mirrors := &site.Mirrors{
		BuildCache:          &site.BuildCache{Mirror: site.Mirror{Name: "cache", Entry: entry}, Push: true},
		Sources:             []site.Mirror{{Name: "z", Entry: source}, {Name: "a", Entry: source}},
		SourceCache:         "/sources",
		ConcretizationCache: "/solutions",
		Keys: []site.KeyFile{
			{Path: "key_store/cache.priv.gpg", Private: true, Data: []byte("secret")},
			{Path: "key_store/cache.pub.gpg", Data: []byte("public")},
		},
	}
	in := input(t, recipeV3, clusterV2)
	in.Mirrors = mirrors
	tree, warnings := render(t, in)
	const sources = "{source: true, binary: false, fetch: {url: https://s}, push: null}"
	wantYAML(t, at(t, tree, "config/mirrors.yaml"),
		"mirrors: {cache: {source: false, binary: true, fetch: {url: 'file:///c'}, push: {url: 'file:///c'}}, z: "+sources+", a: "+sources+"}")
	wantYAML(t, at(t, tree, "config/config.yaml"), "config: {source_cache: /sources, install_tree: {root: /user-environment}}")
	if hasFile(tree, "config/concretizer.yaml") || len(warnings) != 1 || !strings.Contains(warnings[0].Message, "Spack 1.0") {
		t.Errorf("concretization cache for Spack 1.0: warnings %v", warnings)
	}
	for _, f := range tree.Files {
		if strings.Contains(f.Path, "key_store") && (f.Mode == 0o600) != strings.Contains(f.Path, ".priv.") {
			t.Errorf("%s has mode %o", f.Path, f.Mode)
		}
	}
	if c := tree.Caches; c.Mirror != "cache" || !c.Push || !slices.Equal(c.Keys, []string{"config/key_store/cache.priv.gpg", "config/key_store/cache.pub.gpg"}) {
		t.Errorf("caches %+v", c)
	}

	in.Develop = true
	tree, _ = render(t, in)
	wantYAML(t, at(t, tree, "config/concretizer.yaml"), "concretizer: {concretization_cache: {enable: true, url: /solutions}}")

	wantYAML(t, at(t, rendered(t, recipeV2), "config/mirrors.yaml"), "mirrors: {}")
}

func TestMirrorV1(t *testing.T) {
	in := input(t, recipeV1, clusterV1)
	if tree, _ := render(t, in); hasFile(tree, "config/mirrors.yaml") || tree.Caches.Mirror != "" {
		t.Error("mirrors without a cache")
	}
	entry := yamlpos.NewMap("fetch", yamlpos.NewMap("url", "file:///c/user-environment"))
	in.Mirrors = &site.Mirrors{BuildCache: &site.BuildCache{Mirror: site.Mirror{Name: "alpscache", Entry: entry}, Push: true, Key: "/keys/k.gpg"}}
	tree, _ := render(t, in)
	wantYAML(t, at(t, tree, "config/mirrors.yaml"), "mirrors: {alpscache: {fetch: {url: 'file:///c/user-environment'}}}")
	if c := tree.Caches; c.Mirror != "alpscache" || !c.Push || !slices.Equal(c.Keys, []string{"/keys/k.gpg"}) {
		t.Errorf("caches %+v", c)
	}
}

func TestBootstrap(t *testing.T) {
	in := input(t, recipeV3, clusterV2)
	in.Mirrors = &site.Mirrors{Bootstrap: &site.Bootstrap{URL: "https://b"}}
	tree, _ := render(t, in)
	wantYAML(t, at(t, tree, "config/bootstrap.yaml"),
		"bootstrap: {sources: [{name: bootstrap-mirror, metadata: /build/config/bootstrap/bootstrap-mirror}], trusted: {bootstrap-mirror: true}}")
	wantYAML(t, at(t, tree, "config/bootstrap/bootstrap-mirror/metadata.yaml"), "{type: install, info: {url: https://b}}")

	in.Mirrors = &site.Mirrors{Bootstrap: &site.Bootstrap{Root: "/m", Metadata: []string{"sources", "binaries"}}}
	tree, _ = render(t, in)
	wantYAML(t, at(t, tree, "config/bootstrap.yaml"), `
bootstrap:
  sources: [{name: bootstrap-sources, metadata: /m/metadata/sources}, {name: bootstrap-binaries, metadata: /m/metadata/binaries}]
  trusted: {bootstrap-sources: true, bootstrap-binaries: true}`)
}

func TestInputIsChecked(t *testing.T) {
	in := input(t, recipeV3, clusterV2)
	for name, change := range map[string]func(*stack.Input){
		"no recipe":                func(in *stack.Input) { in.Recipe = nil },
		"no cluster":               func(in *stack.Input) { in.Cluster = nil },
		"a relative mount point":   func(in *stack.Input) { in.Mount = "mnt" },
		"the root":                 func(in *stack.Input) { in.Mount = "/x/.." },
		"no build directory":       func(in *stack.Input) { in.BuildDir = "" },
		"relative build directory": func(in *stack.Input) { in.BuildDir = "build" },
	} {
		changed := in
		change(&changed)
		if _, _, err := stack.Render(changed); fault.KindOf(err) != fault.Usage {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// The tree must not depend on the order of maps, the moment or the machine.
func TestRenderIsDeterministic(t *testing.T) {
	in := input(t, environments(recipeV3, envVarsYAML), clusterV2)
	first, _ := render(t, in)
	for range 5 {
		again, _ := render(t, in)
		for i, f := range first.Files {
			if g := again.Files[i]; f.Path != g.Path || string(f.Data) != string(g.Data) {
				t.Fatalf("%s differs:\n%s\n%s", f.Path, f.Data, g.Data)
			}
		}
	}
	configure := file(t, first, "store/meta/configure.json")
	if strings.Contains(configure, in.Recipe.Dir) || strings.Contains(configure, buildDir) {
		t.Errorf("configure.json names directories of the build:\n%s", configure)
	}
}

// What upstream writes between quotes without escaping is read back by Spack.
func TestSpecsOverSeveralLines(t *testing.T) {
	text := "tools:\n  compiler: [gcc]\n  specs:\n  - >\n    hdf5\n    +mpi\n  - |-\n    a\n\n    b\n  - gcc languages='c,c++'\n  - x y=''\n"
	tree := rendered(t, environments(recipeV2, text))
	wantYAML(t, at(t, tree, "environments/tools/spack.yaml", "spack", "specs"), `['hdf5 +mpi ', "a\nb", "gcc languages='c,c++'", "x y='"]`)
}
