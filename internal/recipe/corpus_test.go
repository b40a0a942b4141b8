package recipe_test

import (
	"io/fs"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/testdirs"
)

func corpusRecipes(t testing.TB) []string {
	var dirs []string
	root := testdirs.Corpus(t, "alps-uenv/recipes")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "config.yaml" {
			dirs = append(dirs, filepath.Dir(path))
		}
		return err
	})
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no recipes below %s: %v", root, err)
	}
	return dirs
}

func TestRealRecipesLoad(t *testing.T) {
	versions := map[int]int{}
	rules := map[string]int{}
	for _, dir := range corpusRecipes(t) {
		r, err := recipe.Load(t.Context(), dir)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		versions[r.Version]++
		for _, w := range r.Warnings {
			rules[w.Rule]++
			t.Log(w)
		}
		if r.Name == "" || r.Store == "" || len(r.Environments) == 0 || r.Spack.Repo == "" {
			t.Errorf("%s: not filled in: %+v", dir, r)
		}
	}
	t.Logf("versions %v, warnings %v", versions, rules)
	if versions[1] == 0 || versions[2] == 0 || versions[3] == 0 {
		t.Errorf("versions seen: %v", versions)
	}
}

func BenchmarkLoad(b *testing.B) {
	dirs := corpusRecipes(b)
	for b.Loop() {
		for _, dir := range dirs {
			if _, err := recipe.Load(b.Context(), dir); err != nil {
				b.Fatal(err)
			}
		}
	}
}
