package plan

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
)

const matrixText = `clusters:
  daint:
    targets:
    - {uarch: gh200, partition: normal, variables: {SLURM_ACCOUNT: own}}
    runner: f7t
  eiger:
    targets:
    - {uarch: zen2, partition: long}
    runner: {slurm-tag: slurm, baremetal-tag: null}
    no_bwrap: true
uenvs:
  one:
    "1":
      recipes: {gh200: a, zen2: a}
      deploy:
        daint: [gh200]
        eiger: [zen2, a100]
  two:
    "2":
      recipes:
        gh200: missing
      deploy: {daint: [gh200]}
      mount: /user-tools
`

// sample is an input with two jobs; what Read would find is made up.
func sample(t *testing.T, s Selection) Input {
	t.Helper()
	dir := write(t, t.TempDir(), map[string]string{"config.yaml": matrixText, "recipes/one/a/config.yaml": "x"})
	m, err := site.LoadMatrix(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	develop := "develop"
	return Input{
		Matrix: m, Select: s, Runners: DefaultRunners(),
		Recipes: map[string]Recipe{filepath.Join(dir, "recipes/one/a"): {
			Version: 2, Files: []FileDigest{{"config.yaml", "1"}},
			Spack: recipe.Spack{Repo: "https://example.org/spack.git", Commit: &develop},
		}},
		Clusters: map[ClusterID]Cluster{{System: "daint"}: {}, {System: "eiger"}: {}},
		Commits:  map[Reference]string{{"https://example.org/spack.git", "develop"}: strings.Repeat("a", 40)},
	}
}

func mustMake(t *testing.T, in Input) Plan {
	t.Helper()
	p, err := Make(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ids(p Plan) string {
	var list []string
	for _, j := range p.Jobs {
		list = append(list, j.ID)
	}
	return strings.Join(list, " ")
}

func TestMake(t *testing.T) {
	p := mustMake(t, sample(t, Selection{Deployed: true}))
	if got := ids(p); got != "one/1@daint%gh200 one/1@eiger%zen2" {
		t.Errorf("jobs %s", got)
	}
	var messages []string
	for _, problem := range p.Problems {
		messages = append(messages, problem.Message)
	}
	// a100 is no target of eiger and has no recipe; the recipe of two is missing.
	if len(messages) != 3 || !strings.Contains(strings.Join(messages, ";"), "'missing'") {
		t.Errorf("problems %q", messages)
	}
	daint, eiger := p.Jobs[0], p.Jobs[1]
	if daint.Variables["SLURM_ACCOUNT"] != "own" || daint.Variables["FIRECREST_SYSTEM"] != "daint" || !daint.Sandbox || daint.Mount != "/user-environment" {
		t.Errorf("%+v", daint)
	}
	if len(eiger.Variables) != 0 || eiger.Runner != (Runner{SlurmTag: "slurm"}) || eiger.Sandbox || eiger.Recipe != "recipes/one/a" || eiger.Partition != "long" {
		t.Errorf("%+v", eiger)
	}
	if daint.Key == eiger.Key || len(daint.Key) != 64 {
		t.Errorf("keys %q, %q", daint.Key, eiger.Key)
	}
	if l := daint.Label(); l.String() != daint.ID || KeyTag(daint.Key) != daint.Key[:32] {
		t.Errorf("label %v, tag %s", l, KeyTag(daint.Key))
	}
}

// TestPlansHaveNoCredentials has a recipe whose URL of Spack holds a token, with
// and without a commit.
func TestPlansHaveNoCredentials(t *testing.T) {
	const secret = "s3cr3t"
	for _, commit := range []string{strings.Repeat("a", 40), ""} {
		in := sample(t, Selection{Deployed: true})
		in.Commits = map[Reference]string{{"https://ci:" + secret + "@example.org/spack.git", "develop"}: commit}
		for dir, r := range in.Recipes {
			r.Spack.Repo = "https://ci:" + secret + "@example.org/spack.git"
			in.Recipes[dir] = r
		}
		p := mustMake(t, in)
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), secret) || !strings.Contains(string(text), "https://example.org/spack.git") {
			t.Errorf("%s", text)
		}
		if p.Jobs[0].Key == "" && commit != "" {
			t.Error("no key")
		}
	}
}

func TestProblemsOfWhatIsNotSelected(t *testing.T) {
	for _, c := range []struct {
		s    Selection
		want int
	}{
		{Selection{Uenv: "one", System: "daint"}, 0},
		{Selection{Uenv: "one", System: "eiger"}, 2},
		{Selection{Uenv: "one", UArch: "gh200"}, 0},
		{Selection{Uenv: "two"}, 1},
		{Selection{Uenv: "two", System: "eiger"}, 0},
	} {
		if p := mustMake(t, sample(t, c.s)); len(p.Problems) != c.want {
			t.Errorf("%+v: problems %v", c.s, p.Problems)
		}
	}
}

// A cluster that is described wrongly matters to the jobs of that cluster.
func TestProblemsOfClusters(t *testing.T) {
	for system, want := range map[string]int{"": 1, "daint": 0, "eiger": 1} {
		in := sample(t, Selection{Uenv: "one", System: system, UArch: map[string]string{"": "gh200"}[system]})
		line := in.Matrix.Cluster("eiger").Node.Line + 1
		in.Matrix.Problems = append(in.Matrix.Problems, fault.Problem{File: in.Matrix.File, Line: line, Message: "wrong"})
		found := 0
		for _, p := range mustMake(t, in).Problems {
			if p.Message == "wrong" {
				found++
			}
		}
		if found != want {
			t.Errorf("system %q: %d problems, want %d", system, found, want)
		}
	}
}

func TestUnreadableInputsAreProblems(t *testing.T) {
	in := sample(t, Selection{Uenv: "one"})
	for dir, r := range in.Recipes {
		r.Err = fault.Problems{{File: "config.yaml", Line: 3, Message: "wrong"}, {Severity: fault.Warning, Message: "odd"}}
		in.Recipes[dir] = r
	}
	p := mustMake(t, in)
	if len(p.Jobs) != 0 || len(p.Problems) != 3 || p.Problems.Err() == nil {
		t.Errorf("a recipe with an error, named once: %+v", p)
	}
	in = sample(t, Selection{Uenv: "one", System: "daint"})
	in.Clusters[ClusterID{System: "daint"}] = Cluster{Err: errors.New("no such cluster")}
	if p := mustMake(t, in); len(p.Jobs) != 0 || len(p.Problems) != 1 || p.Problems[0].Message != "no such cluster" {
		t.Errorf("%+v", p)
	}
}

func TestJobWithoutKeyIsAlwaysBuilt(t *testing.T) {
	in := sample(t, Selection{Uenv: "one", System: "daint"})
	in.Commits = nil
	p := mustMake(t, in)
	if p.Jobs[0].Key != "" || len(p.Jobs[0].Unresolved) != 1 {
		t.Errorf("%+v", p.Jobs[0])
	}
	if built := p.WithoutBuilt(map[string]string{"": "everywhere"}); len(built.Jobs) != 1 {
		t.Error("a job without key was taken for built")
	}
}

func TestFixedReferencesNeedNoResolving(t *testing.T) {
	in := sample(t, Selection{Uenv: "one", System: "daint"})
	in.Commits = nil
	for _, ref := range []string{strings.Repeat("b", 40), "0123abc"} {
		for dir, r := range in.Recipes {
			r.Spack.Commit = &ref
			in.Recipes[dir] = r
		}
		if p := mustMake(t, in); p.Jobs[0].Key == "" || p.Jobs[0].Sources[0].Commit != ref {
			t.Errorf("%s: %+v", ref, p.Jobs[0])
		}
	}
}

func TestWithoutBuilt(t *testing.T) {
	p := mustMake(t, sample(t, Selection{Uenv: "one"}))
	kept := p.WithoutBuilt(map[string]string{p.Jobs[0].ID: "build::one/1:42@daint%gh200"})
	if ids(kept) != "one/1@eiger%zen2" || len(kept.Dropped) != 1 || kept.Dropped[0].Reason != "already built: build::one/1:42@daint%gh200" {
		t.Errorf("%+v", kept)
	}
	if len(p.Jobs) != 2 || len(p.Dropped) != 0 {
		t.Error("the plan itself was changed")
	}
}

func TestChangesAreNamed(t *testing.T) {
	before := mustMake(t, sample(t, Selection{Uenv: "one", System: "daint"}))
	for name, c := range map[string]struct {
		change func(*Input)
		want   string
	}{
		"commit": {func(in *Input) {
			in.Commits = map[Reference]string{{"https://example.org/spack.git", "develop"}: strings.Repeat("c", 40)}
		}, "changed: spack from '" + strings.Repeat("a", 40) + "' to '" + strings.Repeat("c", 40) + "'"},
		"variable": {func(in *Input) { in.Variables = map[string]string{"X": "1"} }, "changed: X from '' to '1'"},
		"level":    {func(in *Input) { in.Packing.Level = 9 }, "changed: level from '0' to '9'"},
		"cluster": {func(in *Input) {
			in.Clusters[ClusterID{System: "daint"}] = Cluster{Files: []FileDigest{{"packages.yaml", "1"}}}
		}, "added: packages.yaml of the cluster configuration of daint"},
		"recipe": {func(in *Input) {
			for dir, r := range in.Recipes {
				r.Files = []FileDigest{{"./", directory}, {"extra/", directory}, {"extra/x", "1"}}
				in.Recipes[dir] = r
			}
		}, "removed: recipes/one/a/config.yaml;added: recipes/one/a/extra/x"},
	} {
		in := sample(t, Selection{Uenv: "one", System: "daint"})
		c.change(&in)
		since := mustMake(t, in).Since(before, "v1")
		if len(since.Jobs) != 1 {
			t.Errorf("%s: %d jobs", name, len(since.Jobs))
		} else if got := strings.Join(since.Jobs[0].Reasons, ";"); got != c.want {
			t.Errorf("%s: reasons %q, want %q", name, got, c.want)
		}
	}
}

func TestPlanJSON(t *testing.T) {
	text, err := json.Marshal(mustMake(t, sample(t, Selection{Uenv: "two", System: "eiger"})))
	if want := `{"format":1,"jobs":[],"dropped":[],"problems":[]}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v; want %s", text, err, want)
	}
}
