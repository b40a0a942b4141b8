package stack_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"

	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// files are the files of a directory by name.
type files map[string]string

// with returns a copy with some files replaced or added.
func (f files) with(other files) files {
	all := maps.Clone(f)
	maps.Copy(all, other)
	return all
}

func (f files) write(t testing.TB, dir string) string {
	t.Helper()
	for name, text := range f {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var recipeV1 = files{
	"config.yaml":       "name: demo\nspack: {repo: 'https://example.org/spack.git', commit: releases/v0.23}\nmodules: false\n",
	"compilers.yaml":    "bootstrap: {spec: gcc@11.3}\ngcc: {specs: [gcc@12.3]}\n",
	"environments.yaml": "tools:\n  compiler: [{toolchain: gcc, spec: gcc@12.3}]\n  specs: [zlib]\n  views: {default: }\n",
}

var recipeV2 = files{
	"config.yaml": `
name: demo
version: 2
spack:
  repo: https://example.org/spack.git
  commit: releases/v1.0
  packages: {repo: 'https://example.org/packages.git', commit: develop}
`,
	"compilers.yaml":    "gcc: {version: '13'}\n",
	"environments.yaml": "tools:\n  compiler: [gcc]\n  specs: [zlib]\n  views: {default: }\n",
}

var recipeV3 = recipeV2.with(files{"config.yaml": strings.Replace(recipeV2["config.yaml"], "version: 2", "version: 3", 1)})

var recipeScript = files{
	"config.yaml":       "builder: script\nname: sdk\ndescription: vendor kit\n",
	"environments.yaml": "views:\n  default:\n    description: all of it\n    prefix_paths: {PATH: [bin], LD_LIBRARY_PATH: [lib, lib64]}\n",
	"build":             "#!/bin/sh\ntrue\n",
}

var clusterV1 = files{
	"packages.yaml":  "packages:\n  slurm: {buildable: false}\n",
	"compilers.yaml": "compilers: []\n",
}

var clusterV2 = files{
	"packages.yaml": "packages:\n  gcc: {externals: [{spec: gcc@12.3.0, prefix: /usr}]}\n  slurm: {buildable: false}\n",
	"network.yaml":  "mpi:\n  cray-mpich: {specs: ['libfabric@2.2:']}\n  openmpi: {specs: []}\npackages:\n  libfabric: {buildable: true}\n",
}

// input makes the input of a rendering: recipe and cluster are written and read.
func input(t testing.TB, recipeFiles, clusterFiles files) stack.Input {
	t.Helper()
	dir := recipeFiles.write(t, t.TempDir())
	if _, ok := recipeFiles["build"]; ok {
		if err := os.Chmod(filepath.Join(dir, "build"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r, err := recipe.Load(t.Context(), dir)
	if err != nil {
		t.Fatalf("the recipe does not load: %v", err)
	}
	in := stack.Input{Recipe: r, BuildDir: buildDir}
	if clusterFiles != nil {
		cluster := clusterFiles.write(t, filepath.Join(t.TempDir(), "daint"))
		if in.Cluster, err = site.LoadCluster(cluster); err != nil {
			t.Fatalf("the cluster configuration does not load: %v", err)
		}
	}
	return in
}

func render(t testing.TB, in stack.Input) (*stack.Tree, fault.Problems) {
	t.Helper()
	tree, warnings, err := stack.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	return tree, warnings
}

// clusterFor is the cluster configuration that recipes of a version need.
func clusterFor(r files) files {
	switch {
	case strings.Contains(r["config.yaml"], "builder: script"):
		return nil
	case strings.Contains(r["config.yaml"], "version:"):
		return clusterV2
	}
	return clusterV1
}

// rendered renders a recipe on the cluster for its version.
func rendered(t testing.TB, r files) *stack.Tree {
	t.Helper()
	tree, _ := render(t, input(t, r, clusterFor(r)))
	return tree
}

// file returns the text of a file of a tree.
func file(t testing.TB, tree *stack.Tree, name string) string {
	t.Helper()
	for _, f := range tree.Files {
		if f.Path == name {
			return string(f.Data)
		}
	}
	t.Fatalf("the tree has no file %s", name)
	return ""
}

func hasFile(tree *stack.Tree, name string) bool {
	for _, f := range tree.Files {
		if f.Path == name {
			return true
		}
	}
	return false
}

// at reads a value of a YAML or JSON file: at(t, tree, "env/spack.yaml", "spack", "specs").
func at(t testing.TB, tree *stack.Tree, name string, keys ...string) *yamlpos.Node {
	t.Helper()
	node, err := yamlpos.Parse(name, []byte(file(t, tree, name)))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		node = node.Get(key)
	}
	return node
}

// wantYAML compares a value with one written as YAML; "" means absent.
func wantYAML(t testing.TB, got *yamlpos.Node, want string) {
	t.Helper()
	if want == "" {
		if got != nil {
			t.Errorf("got %s, want nothing", flow(t, got))
		}
		return
	}
	node, err := yamlpos.Parse("want", []byte(want))
	if err != nil {
		t.Fatal(err)
	}
	c := comparison{}
	c.compare("$", node.Data(), got.Data())
	if len(c.found) > 0 {
		t.Errorf("got %s, want %s", flow(t, got), want)
	}
}

func flow(t testing.TB, node *yamlpos.Node) string {
	t.Helper()
	data, err := yamlpos.MarshalJSON(node, 0)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// group returns a spec group of a version 3 tree.
func group(t testing.TB, tree *stack.Tree, name string) *yamlpos.Node {
	t.Helper()
	for _, g := range at(t, tree, "env/spack.yaml", "spack", "specs").Items {
		if s, _ := g.Get("group").Str(); s == name {
			return g
		}
	}
	t.Fatalf("no group %s", name)
	return nil
}

// refused renders an input that must be refused, and returns the problems.
func refused(t testing.TB, in stack.Input) fault.Problems {
	t.Helper()
	_, _, err := stack.Render(in)
	if err == nil {
		t.Fatal("not refused")
	}
	if fault.KindOf(err) != fault.Invalid {
		t.Fatalf("kind %d: %v", fault.KindOf(err), err)
	}
	problems, ok := err.(fault.Problems)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	return problems
}
