package pipeline_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/testdirs"
)

// realMatrix copies the field's matrix with its recipes. Those that the corpus
// lacks, but upstream has, are minimal valid ones.
func realMatrix(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(testdirs.Corpus(t, "alps-uenv"))); err != nil {
		t.Fatal(err)
	}
	m, err := site.LoadMatrix(filepath.Join(root, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range m.Versions {
		for _, r := range v.Recipes {
			if r.Dir == "" {
				writeTree(t, filepath.Join(root, "recipes", v.Uenv, r.Path), map[string]string{
					"config.yaml":       fmt.Sprintf(stubConfig, v.Uenv),
					"compilers.yaml":    "gcc: {version: '13'}\n",
					"environments.yaml": "tools: {compiler: [gcc], specs: [zlib]}\n",
				})
			}
		}
	}
	return root
}

const stubConfig = `name: %s
version: 2
spack: {repo: 'https://example.org/spack.git', commit: v1.0.0, packages: {repo: 'https://example.org/packages.git', commit: v2025.11.0}}
`

func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// corpusClusters finds the configurations of clusters: recipes of version 1 need
// those of an older branch.
func corpusClusters(t testing.TB) func(system string, recipeVersion int) string {
	root := testdirs.Corpus(t, "cluster-config")
	return func(system string, recipeVersion int) string {
		branch := "main"
		if recipeVersion == 1 {
			branch = "v5"
		}
		dir := filepath.Join(root, branch, system)
		if _, err := os.Stat(dir); err != nil {
			return ""
		}
		return dir
	}
}
