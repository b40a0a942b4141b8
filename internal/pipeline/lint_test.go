package pipeline_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/testdirs"
)

func lint(t testing.TB, o pipeline.LintOptions) pipeline.LintReport {
	t.Helper()
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if o.WorkDir == "" {
		o.WorkDir = filepath.Dir(o.Paths[0])
	}
	r, err := pipeline.Lint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A checkout is of strangers: what is no file of a sensible size is said to be none, and
// not waited for.
func TestLintReadsOnlyFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, sub := range []string{"pipe", "link", "cluster", "env", "large"} {
		if err := os.Mkdir(at(sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(
		unix.Mkfifo(at("pipe/config.yaml"), 0o600), os.Symlink("/dev/zero", at("link/config.yaml")), unix.Mkfifo(at("cluster/packages.yaml"), 0o600),
		os.WriteFile(at("env/config.yaml"), []byte("builder: script\nname: x\n"), 0o600), unix.Mkfifo(at("env/environments.yaml"), 0o600),
		os.WriteFile(at("large/config.yaml"), nil, 0o600), os.Truncate(at("large/config.yaml"), 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"pipe", "pipe/config.yaml", "link", "cluster", "cluster/packages.yaml", "env", "large", "large/config.yaml"} {
		if r := lint(t, pipeline.LintOptions{Paths: []string{at(path)}, WorkDir: dir}); r.Errors == 0 {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

// The field's matrix has one fault, which its own validator does not report.
func TestLintFindsTheFaultOfTheRealMatrix(t *testing.T) {
	root := realMatrix(t)
	r := lint(t, pipeline.LintOptions{Paths: []string{filepath.Join(root, "config.yaml")}, ClusterFor: corpusClusters(t)})
	want := "config.yaml:363:19: prgenv-gnu/26.3 is deployed to a100 on 'bristen' without a recipe for a100 (add it below 'recipes')"
	if r.Errors != 1 || r.Problems.Errors()[0].String() != want {
		t.Errorf("got %v\nwant %s", r.Problems.Errors(), want)
	}
	if r.Checked.Matrices != 1 || r.Checked.Recipes < 100 || r.Checked.Targets < 180 || r.Checked.Clusters < 15 {
		t.Errorf("checked %+v", r.Checked)
	}
	for rule, count := range map[string]int{"spack-too-old": 2, "moving-branch": 29, "gzip-upstream": 88} {
		if got := len(withRule(r.Problems, rule)); got != count {
			t.Errorf("%d warnings %s, want %d", got, rule, count)
		}
	}
	for _, p := range withRule(r.Problems, "spack-too-old") {
		if !strings.HasPrefix(p.File, "recipes/gromacs/2023/") && !strings.HasPrefix(p.File, "recipes/quantumespresso/v7.1/") {
			t.Errorf("too old: %s", p)
		}
	}
	strict := lint(t, pipeline.LintOptions{Paths: []string{filepath.Join(root, "config.yaml")}, ClusterFor: corpusClusters(t), Strict: true})
	if strict.Warnings != 0 || strict.Errors != r.Errors+r.Warnings {
		t.Errorf("strict: %d errors, %d warnings", strict.Errors, strict.Warnings)
	}
}

func withRule(problems fault.Problems, rule string) fault.Problems {
	return slices.DeleteFunc(slices.Clone(problems), func(p fault.Problem) bool { return p.Rule != rule })
}

// All configurations of clusters are sound but for the list beside them.
func TestLintRealClusters(t *testing.T) {
	r := lint(t, pipeline.LintOptions{Paths: []string{testdirs.Corpus(t, "cluster-config")}})
	if r.Errors != 0 || r.Checked.Clusters < 20 || len(withRule(r.Problems, "stale-list")) != r.Warnings {
		t.Errorf("checked %+v: %v", r.Checked, r.Problems)
	}
	var lacking []string
	for _, p := range r.Problems {
		lacking = append(lacking, filepath.Base(filepath.Dir(p.File))+": "+p.Message)
	}
	for _, want := range []string{"main: there is no configuration of the cluster 'tasna' beside this list", "main: the list lacks the cluster 'daint'"} {
		if !slices.Contains(lacking, want) {
			t.Errorf("no %q in %q", want, lacking)
		}
	}
}

// A recipe that several targets share is checked with each of their clusters,
// and what is wrong with it on its own is told once.
func TestLintTellsEachProblemOnce(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, map[string]string{
		"config.yaml": `clusters:
  one: {targets: [{uarch: zen2, partition: p}, {uarch: zen3, partition: p}], runner: f7t}
  two: {targets: [{uarch: zen2, partition: p}], runner: f7t}
uenvs:
  tools: {"1": {recipes: {zen2: r, zen3: r}, deploy: {one: [zen2]}}}
`,
		"recipes/r/config.yaml":       "name: r\nversion: 2\nspack: {repo: 'https://example.org/s', commit: main, packages: {repo: 'https://example.org/p', commit: v1}}\n",
		"recipes/r/compilers.yaml":    "gcc: {version: '13'}\n",
		"recipes/r/environments.yaml": "tools: {compiler: [gcc], specs: [zlib], network: {mpi: mpich}}\n",
		"clusters/one/packages.yaml":  "packages: {gcc: {externals: []}}\n",
		"clusters/one/network.yaml":   "mpi: {cray-mpich: {}}\n",
		"clusters/two/packages.yaml":  "packages: {gcc: {externals: []}}\n",
		"clusters/two/network.yaml":   "mpi: {cray-mpich: {}, openmpi: {}}\n",
	})
	r := lint(t, pipeline.LintOptions{Paths: []string{filepath.Join(root, "config.yaml"), filepath.Join(root, "recipes"), filepath.Join(root, "clusters")}})
	var got []string
	for _, p := range r.Problems {
		if p.Rule != "gzip-upstream" {
			got = append(got, p.String())
		}
	}
	// Deployed on one, so that is wrong; on two it is only built if someone asks.
	want := []string{
		"recipes/r/config.yaml:3:48: warning: Spack is taken from the branch 'main', which moves (pin a tag or a commit, so that the same recipe builds the same image)",
		"recipes/r/environments.yaml:1:56: mpich is not a supported MPI of cluster 'one' (try one of cray-mpich)",
		"recipes/r/environments.yaml:1:56: warning: mpich is not a supported MPI of cluster 'two' (try one of cray-mpich, openmpi)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLintHostileDirectories(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, map[string]string{"deep/config.yaml": "name: x\n", "matrix/config.yaml": "clusters: {a: {}}\nuenvs: {a: {b: 1}}\n", "matrix/recipes/x": ""})
	for link, target := range map[string]string{"loop": ".", "deep/environments.yaml": "../../../../../../etc/passwd", "deep/more": "more"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	r := lint(t, pipeline.LintOptions{Paths: []string{root}})
	if r.Errors == 0 || r.Checked.Recipes != 1 || r.Checked.Matrices != 1 {
		t.Errorf("checked %+v: %v", r.Checked, r.Problems)
	}
	for _, p := range r.Problems {
		if strings.Contains(p.Message, "root:") {
			t.Errorf("the content of a file outside is shown: %s", p)
		}
	}
}

func TestLintStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"config.yaml": "name: x\n"})
	_, err := pipeline.Lint(ctx, pipeline.LintOptions{Paths: []string{dir}, WorkDir: dir})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkLint checks the field's whole matrix.
func BenchmarkLint(b *testing.B) {
	root := realMatrix(b)
	clusters := corpusClusters(b)
	b.ReportAllocs()
	for b.Loop() {
		lint(b, pipeline.LintOptions{Paths: []string{filepath.Join(root, "config.yaml")}, ClusterFor: clusters})
	}
}
