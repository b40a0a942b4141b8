package stack_test

import (
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
)

// FuzzRender reads a recipe and a cluster configuration made of any text, and
// renders what can be read. Nothing of it may panic, and Check must find what
// Render finds.
func FuzzRender(f *testing.F) {
	const spack = "spack: {repo: 'https://example.org/s', commit: COMMIT, packages: {repo: 'https://example.org/p', commit: v1}}\n"
	cluster := "packages:\n  gcc: {externals: [{spec: gcc@12.3, prefix: /usr}]}\n  libfabric: {buildable: false}\n"
	network := "mpi: {cray-mpich: {specs: [libfabric]}, openmpi: {}}\npackages: {cray-mpich: {version: [9]}}\n"
	f.Add("name: a\nspack: {repo: r, commit: v0.23.1}\n", "bootstrap: {spec: gcc@11}\ngcc: {specs: [gcc@12]}\nllvm: {requires: gcc@12, specs: [nvhpc@22.11]}\n",
		"e:\n  compiler: [{toolchain: gcc, spec: gcc@12}, {toolchain: llvm, spec: nvhpc@22.11}]\n  specs: [a%gcc]\n  mpi: {spec: openmpi, gpu: cuda}\n  views: {v: {}, w: {link: run}}\n", "modules: {default: {roots: {tcl: x}}}\n", "packages: {}\n", "", "")
	f.Add("name: a\nversion: 2\ndefault-view: v\n"+spack, "gcc: {version: '13'}\nnvhpc: {version: '25'}\n",
		"e:\n  compiler: [gcc, nvhpc]\n  specs: [a, b]\n  unify: when_possible\n  duplicates: {strategy: full}\n  network: {mpi: cray-mpich@9, specs: [x]}\n  views:\n    v: {exclude: [a], uenv: {prefix_paths: {PATH: [bin]}, env_vars: {set: [{A: $@mount@}], prepend_path: [{PATH: /x}]}}}\n", "modules: {default: {enable: [lmod]}}\n", cluster, network, "{{ env.mount }}\n")
	f.Add("name: a\nversion: 3\ncleanup: build\n"+spack, "gcc: {version: system}\nllvm: {version: '19', spec: +x}\n",
		"e:\n  compiler: [llvm]\n  specs: [a]\n  prefer: ['%llvm']\n  views: {v: {projections: {all: '{name}'}, select: [a]}}\n", "", cluster, network, "{{ env.x }}\n")
	f.Fuzz(func(t *testing.T, config, compilers, environments, modules, packages, network, hook string) {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"recipe/config.yaml": config, "recipe/compilers.yaml": compilers, "recipe/environments.yaml": environments,
			"recipe/modules.yaml": modules, "recipe/post-install": hook, "cluster/packages.yaml": packages, "cluster/network.yaml": network,
		} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		loaded, err := recipe.Load(t.Context(), filepath.Join(dir, "recipe"))
		if err != nil {
			return
		}
		c, err := site.LoadCluster(filepath.Join(dir, "cluster"))
		if err != nil {
			return
		}
		in := stack.Input{Recipe: loaded, Cluster: c, BuildDir: buildDir}
		_, _, renderErr := stack.Render(in)
		found, err := stack.Check(in)
		if (renderErr == nil) != (err == nil && found.Err() == nil) {
			t.Errorf("Render: %v, Check: %v %v", renderErr, found, err)
		}
	})
}
