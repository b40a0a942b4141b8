package stack_test

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"

	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/testdirs"
)

const buildDir = "/build"

// goldenRun is one run of stackinator, as run.json describes it.
type goldenRun struct {
	dir     string // with what it wrote
	corpus  string
	System  string `json:"system"`
	Mount   string `json:"mount"`
	Recipe  string `json:"recipe"`
	Cluster string `json:"system_config"`
	Derived string `json:"derived"` // recipe's version is to be set to 3
	OK      bool   `json:"ok"`
	Error   string `json:"error"`
}

func goldenRuns(t testing.TB) []goldenRun {
	root := testdirs.Corpus(t, ".")
	files, err := filepath.Glob(filepath.Join(root, "golden*", "*", "run.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden runs: %v", err)
	}
	runs := make([]goldenRun, len(files))
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		runs[i] = goldenRun{dir: filepath.Dir(file), corpus: root}
		if err := json.Unmarshal(data, &runs[i]); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return runs
}

var versionLine = regexp.MustCompile(`(?m)^version:.*$`)

// recipeDir returns the recipe of a run, changed to version 3 where asked for.
func (g goldenRun) recipeDir(t testing.TB) string {
	dir := filepath.Join(g.corpus, g.Recipe)
	if g.Derived == "" {
		return dir
	}
	changed := filepath.Join(t.TempDir(), "recipe")
	if err := os.CopyFS(changed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(changed, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if !versionLine.Match(text) {
		t.Fatalf("%s has no version", config)
	}
	if err := os.Chmod(config, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, versionLine.ReplaceAll(text, []byte("version: 3")), 0o644); err != nil {
		t.Fatal(err)
	}
	return changed
}

func (g goldenRun) render(t testing.TB) (*stack.Tree, error) {
	r, err := recipe.Load(t.Context(), g.recipeDir(t))
	if err != nil {
		return nil, err
	}
	cluster, err := site.LoadCluster(filepath.Join(g.corpus, g.Cluster))
	if err != nil {
		return nil, err
	}
	tree, _, err := stack.Render(stack.Input{Recipe: r, Cluster: cluster, System: g.System, Mount: g.Mount, BuildDir: buildDir})
	return tree, err
}

// TestGolden renders what stackinator was run on, and compares the trees.
func TestGolden(t *testing.T) {
	for _, run := range goldenRuns(t) {
		t.Run(filepath.Base(run.dir), func(t *testing.T) {
			tree, err := run.render(t)
			if !run.OK {
				if err == nil {
					t.Fatalf("not refused; stackinator says: %s", run.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			if err := tree.Write(out); err != nil {
				t.Fatal(err)
			}
			found, err := compareTrees(run.dir, out, buildDir)
			if err != nil {
				t.Fatal(err)
			}
			for _, difference := range found {
				t.Error(difference)
			}
			checkDescription(t, tree)
		})
	}
}

// checkDescription checks that what a build engine is told agrees with the files.
func checkDescription(t *testing.T, tree *stack.Tree) {
	t.Helper()
	files := map[string]bool{}
	for _, f := range tree.Files {
		if files[f.Path] {
			t.Errorf("%s is in the tree twice", f.Path)
		}
		files[f.Path] = true
	}
	built := map[string]bool{"": true} // what offers compilers; "" is the cluster
	views := 0
	for _, e := range tree.Environments {
		if !files[e.Dir+"/spack.yaml"] {
			t.Errorf("%s has no spack.yaml", e.Dir)
		}
		for _, g := range e.Groups {
			for _, need := range g.Needs {
				if !built[need] {
					t.Errorf("group %s needs %s, which is not built before", g.Name, need)
				}
			}
			built[g.Name] = true
		}
		for _, c := range e.BuiltWith {
			if !built[c.Environment] || c.Package == "" {
				t.Errorf("%s is built with %+v, which is not built before", e.Name, c)
			}
		}
		if e.Kind == stack.KindCompiler {
			built[e.Name] = true
		}
		for _, v := range e.Views {
			if v.Root != path.Join(tree.Mount, "env", v.Name) {
				t.Errorf("view %s has the root %s", v.Name, v.Root)
			}
			for _, c := range v.Compilers {
				if !built[c.Environment] {
					t.Errorf("view %s offers %+v, which is not built", v.Name, c)
				}
			}
			views++
		}
	}
	if document := at(t, tree, "store/meta/env.json.in", "views"); len(document.Pairs) != views {
		t.Errorf("%d views in env.json.in, %d described", len(document.Pairs), views)
	}
	for _, c := range tree.Config.Install {
		if !files[c.From] && !slices.ContainsFunc(tree.Copies, func(copied stack.Copy) bool { return copied.To == c.From }) {
			t.Errorf("%s is to be installed and is not in the tree", c.From)
		}
	}
}

// BenchmarkConfigure reads a recipe and a cluster configuration and renders
// their build tree: all of it, for each golden run in turn.
func BenchmarkConfigure(b *testing.B) {
	var runs []goldenRun
	for _, run := range goldenRuns(b) {
		if run.OK && run.Derived == "" {
			runs = append(runs, run)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := runs[i%len(runs)].render(b); err != nil {
			b.Fatal(err)
		}
	}
}
