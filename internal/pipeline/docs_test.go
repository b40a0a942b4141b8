package pipeline_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/pipeline"
)

var example = regexp.MustCompile("(?ms)^```yaml (\\S+)\n(.*?)^```$")

// The examples of the documentation are right, and their recipes fit the cluster.
func TestExamplesOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "recipes.md"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	files := map[string]string{"script/build": "#!/bin/sh\n", "matrix/recipes/tools/mc/build": "#!/bin/sh\n", "matrix/recipes/tools/mc/config.yaml": "builder: script\nname: tools\n"}
	for _, m := range example.FindAllStringSubmatch(string(text), -1) {
		if files[m[1]] != "" {
			t.Errorf("two examples for %s", m[1])
		}
		files[m[1]] = m[2]
	}
	if n := strings.Count(string(text), "```yaml"); n != len(files)-3 || n < 10 {
		t.Errorf("%d examples, %d of them checked", n, len(files)-3)
	}
	writeTree(t, root, files)
	for _, name := range []string{"script/build", "matrix/recipes/tools/mc/build"} {
		if err := os.Chmod(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	checked := lint(t, pipeline.LintOptions{Paths: []string{root}, WorkDir: root})
	for _, p := range checked.Problems {
		if p.Rule != "gzip-upstream" {
			t.Error(p)
		}
	}
	if checked.Checked.Recipes != 5 || checked.Checked.Clusters != 1 || checked.Checked.Matrices != 1 {
		t.Errorf("checked %+v", checked.Checked)
	}
	for _, recipe := range []string{"v2", "v3"} {
		_, err := pipeline.Configure(t.Context(), pipeline.ConfigureOptions{
			Build: pipeline.BuildOptions{Recipe: filepath.Join(root, recipe), Cluster: filepath.Join(root, "clusters", "demo"), Options: build.Options{Offline: true}},
			Out:   t.TempDir(),
		})
		if err != nil {
			t.Errorf("%s: %v", recipe, err)
		}
	}
}
