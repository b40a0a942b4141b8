package plan_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/testdirs"
	"uenv-ci.dev/internal/yamlpos"
	"uenv-ci.dev/schemas"
)

const minimalV2 = `name: NAME
version: 2
spack: {repo: 'https://example.org/spack.git', commit: v1.0.0, packages: {repo: 'https://example.org/p.git', commit: v1}}
`

// realMatrix copies the matrix with its recipes; those that the corpus lacks are
// minimal valid ones, as far as the field has them.
func realMatrix(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(testdirs.Corpus(t, "alps-uenv"))); err != nil {
		t.Fatal(err)
	}
	m := loadMatrix(t, root)
	for _, v := range m.Versions {
		for _, r := range v.Recipes {
			if r.Dir != "" {
				continue
			}
			dir := filepath.Join(root, "recipes", v.Uenv, r.Path)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{
				"config.yaml": strings.Replace(minimalV2, "NAME", v.Uenv+"-"+v.Version+"-"+r.UArch, 1), "compilers.yaml": "gcc: {version: '13'}\n", "environments.yaml": "tools: {compiler: [gcc], specs: [zlib]}\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return root
}

func loadMatrix(t testing.TB, root string) *site.Matrix {
	t.Helper()
	m, err := site.LoadMatrix(filepath.Join(root, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func corpusClusters(t testing.TB) func(string, int) string {
	root := testdirs.Corpus(t, "cluster-config")
	return func(system string, version int) string {
		branch := "main"
		if version == 1 {
			branch = "v5"
		}
		return filepath.Join(root, branch, system)
	}
}

// resolve makes up a commit for every reference but unknown ones.
func resolve(_ context.Context, repo, ref string) (string, error) {
	if strings.Contains(ref, "unknown") {
		return "", errors.New("no such reference")
	}
	return strings.Repeat("0123456789abcdef", 3)[len(repo+ref)%8:][:40], nil
}

func makePlan(t testing.TB, root string, s plan.Selection) plan.Plan {
	t.Helper()
	in, err := plan.Read(t.Context(), plan.ReadOptions{
		Matrix: loadMatrix(t, root), Select: s, ClusterDir: corpusClusters(t), Resolve: resolve, Runners: plan.DefaultRunners(),
		Packing: plan.Packing{Codec: "zstd", Level: 3, BlockSize: 131072},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// planProblems are what the schema of plans says of one.
func planProblems(t testing.TB, p plan.Plan) fault.Problems {
	t.Helper()
	s, err := schema.Compile(schemas.FS, "plan.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	root, err := yamlpos.Parse("plan.json", text)
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(root)
}

// The pipeline of the real matrix has what the field's own pipelines take from it.
func TestPipelineOfTheRealMatrix(t *testing.T) {
	p := makePlan(t, realMatrix(t), plan.Selection{Deployed: true})
	if problems := planProblems(t, p); len(problems) > 0 {
		t.Errorf("the plan: %v", problems)
	}
	if broken := (plan.Plan{Format: 1, Jobs: []plan.Job{{ID: "x", Key: "y"}}}); len(planProblems(t, broken)) == 0 {
		t.Error("the schema of plans lets everything pass")
	}
	text, err := p.GitLab(plan.GitLabOptions{ParentJob: "pipeline-configure"})
	if err != nil {
		t.Fatal(err)
	}
	root, err := yamlpos.Parse("pipeline.yml", text)
	if err != nil {
		t.Fatal(err)
	}
	variables := map[string]map[string]string{}
	for _, pair := range root.Pairs {
		if of := pair.Value.Get("variables"); of != nil {
			variables[pair.Key.Raw] = map[string]string{"tag": strings.Join(pair.Value.Get("tags").Texts(), " ")}
			for _, v := range of.Pairs {
				variables[pair.Key.Raw][v.Key.Raw] = v.Value.Raw
			}
		}
	}
	if len(variables) != 2*145+2 {
		t.Errorf("%d jobs", len(variables))
	}
	for _, c := range []struct{ job, variable, want string }{
		{"build-editors/24.7-eiger/zen2", "SLURM_CONSTRAINT", "mc"},
		{"build-editors/24.7-eiger/zen2", "tag", "f7t-runner"},
		{"test-editors/24.7-eiger/zen2", "STACK_MOUNT", "/user-tools"},
		{"test-linalg/25.10-beverin/mi200", "SLURM_TIMELIMIT", "500"},
		{"test-linalg/25.10-beverin/mi200", "SLURM_PARTITION", "mi200"},
		{"build-linalg/25.10-beverin/mi200", "F7T_CLIENT_SECRET", "$F7T_BEVERIN_CLIENT_SECRET"},
		{"build-linalg/25.10-beverin/mi200", "F7T_URL", "https://api.cscs.ch/beverin/firecrest/v2"},
		{"build-linalg/25.10-beverin/mi200", "FIRECREST_SYSTEM", "beverin"},
		{"build-linalg/25.10-beverin/mi200", "STACK_RECIPE", "recipes/linalg/25.10/amdgpu"},
		{"build-linalg/25.10-beverin/mi200", "CSCS_RUNNER_MODE", "baremetal"},
	} {
		if got := variables[c.job][c.variable]; got != c.want {
			t.Errorf("%s: %s is %q, not %q", c.job, c.variable, got, c.want)
		}
	}
}

func TestRealMatrix(t *testing.T) {
	root := realMatrix(t)
	p := makePlan(t, root, plan.Selection{Deployed: true})
	if len(p.Jobs) != 145 {
		t.Errorf("%d jobs, want the 146 deployments less the one without a recipe", len(p.Jobs))
	}
	if len(p.Problems) != 1 || !strings.Contains(p.Problems[0].Message, "prgenv-gnu/26.3 is deployed to a100 on 'bristen' without a recipe") {
		t.Errorf("problems: %v", p.Problems)
	}
	keys := map[string]string{}
	for _, j := range p.Jobs {
		if len(j.Key) != 64 || len(j.Unresolved) > 0 {
			t.Errorf("%s: key %q, unresolved %v", j.ID, j.Key, j.Unresolved)
		}
		if other, ok := keys[j.Key]; ok {
			t.Errorf("%s and %s have one key", j.ID, other)
		}
		keys[j.Key] = j.ID
	}
	undeployed := 0
	for _, j := range makePlan(t, root, plan.Selection{}).Jobs {
		if !j.Deploy {
			undeployed++
		}
	}
	if undeployed == 0 {
		t.Error("no job for what can be built and is deployed nowhere")
	}
}

// Two checkouts of one revision give the same plan, byte for byte.
func TestPlanIsTheSameOfEveryCheckout(t *testing.T) {
	var texts [][]byte
	for range 2 {
		text, err := json.Marshal(makePlan(t, realMatrix(t), plan.Selection{Deployed: true}).Jobs)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	if !bytes.Equal(texts[0], texts[1]) {
		t.Error("the plans differ")
	}
}

// A broken row fails only the plans that select it.
func TestBrokenRowConcernsOnlyItsTarget(t *testing.T) {
	root := realMatrix(t)
	for _, c := range []struct {
		selection plan.Selection
		problems  int
	}{
		{plan.Selection{Uenv: "prgenv-gnu", Version: "26.3"}, 1},
		{plan.Selection{Uenv: "prgenv-gnu", System: "bristen"}, 1},
		{plan.Selection{Uenv: "prgenv-gnu", Version: "26.3", System: "eiger"}, 0},
		{plan.Selection{Uenv: "prgenv-gnu", Version: "26.3", UArch: "zen2"}, 0},
		{plan.Selection{Uenv: "prgenv-gnu", Version: "25.6"}, 0},
		{plan.Selection{Uenv: "editors"}, 0},
	} {
		p := makePlan(t, root, c.selection)
		if len(p.Problems) != c.problems {
			t.Errorf("%v: problems %v", c.selection, p.Problems)
		}
		if len(p.Jobs) == 0 && c.selection.System != "bristen" {
			t.Errorf("%v: no jobs", c.selection)
		}
	}
}

func TestJobOfTheRealMatrix(t *testing.T) {
	p := makePlan(t, realMatrix(t), plan.Selection{Uenv: "linaro-forge", Version: "26.0", System: "starlex"})
	if len(p.Jobs) != 1 {
		t.Fatalf("%d jobs", len(p.Jobs))
	}
	j := p.Jobs[0]
	if j.ID != "linaro-forge/26.0@starlex%gh200" || j.Recipe != "recipes/linaro-forge/26.0" || j.Mount != "/user-tools" ||
		j.RecipeVersion != 3 || !j.Deploy || j.Partition != "normal" || j.Runner.Kind != "f7t" || !j.Sandbox {
		t.Errorf("%+v", j)
	}
	for name, want := range map[string]string{
		"FIRECREST_SYSTEM": "starlex", "CSCS_RUNNER_MODE": "baremetal", "F7T_CLIENT_ID": "$F7T_TDS_CLIENT_ID",
		"F7T_URL": "https://api.tds.cscs.ch/stp/firecrest/v2",
	} {
		if j.Variables[name] != want {
			t.Errorf("%s=%s, want %s", name, j.Variables[name], want)
		}
	}
	if len(j.Sources) != 2 || j.Sources[0].Name != "spack" || j.Sources[1].Name != "builtin" {
		t.Errorf("sources %+v", j.Sources)
	}
	if got := strings.Join(j.Reasons, ";"); got != "selected: uenv linaro-forge, version 26.0, system starlex" {
		t.Errorf("reasons %q", got)
	}
}

func TestSince(t *testing.T) {
	root := realMatrix(t)
	before := makePlan(t, root, plan.Selection{Deployed: true})
	edit := func(name string, change func(string) string) {
		t.Helper()
		file := filepath.Join(root, name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(change(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if same := makePlan(t, root, plan.Selection{Deployed: true}).Since(before, "main"); len(same.Jobs) != 0 || len(same.Dropped) != 145 {
		t.Errorf("nothing changed: %d jobs, %d dropped", len(same.Jobs), len(same.Dropped))
	}
	edit("recipes/prgenv-gnu/26.3/mc/environments.yaml", func(s string) string { return s + "# more\n" })
	edit("config.yaml", func(s string) string {
		return strings.Replace(s, "    \"25.3\":\n      recipes:\n        zen2: \"25.3\"", "    \"25.4\":\n      recipes:\n        zen2: \"25.3\"", 1)
	})
	since := makePlan(t, root, plan.Selection{Deployed: true}).Since(before, "main")
	var got []string
	for _, j := range since.Jobs {
		got = append(got, j.ID+" "+strings.Join(j.Reasons, ";"))
	}
	want := "editors/25.4@eiger%zen2 new since main\n" +
		"prgenv-gnu/26.3@eiger%zen2 changed: recipes/prgenv-gnu/26.3/mc/environments.yaml"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestReferencesThatCannotBeResolved(t *testing.T) {
	root := realMatrix(t)
	file := filepath.Join(root, "recipes/editors/25.3/config.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	changed := regexp.MustCompile(`commit: .*`).ReplaceAll(text, []byte("commit: unknown-branch"))
	if err := os.WriteFile(file, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, j := range makePlan(t, root, plan.Selection{Uenv: "editors", Version: "25.3"}).Jobs {
		if j.Key != "" || len(j.Unresolved) == 0 || !strings.Contains(j.Unresolved[0], "'unknown-branch'") {
			t.Errorf("%+v", j)
		}
	}
}

func TestReadIsInterrupted(t *testing.T) {
	root := realMatrix(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := plan.Read(ctx, plan.ReadOptions{Matrix: loadMatrix(t, root)}); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("error %v", err)
	}
}

func BenchmarkPlanAll(b *testing.B) {
	root := realMatrix(b)
	for b.Loop() {
		makePlan(b, root, plan.Selection{Deployed: true})
	}
}

func TestUnknownSelection(t *testing.T) {
	root := realMatrix(t)
	for _, c := range []struct {
		selection  plan.Selection
		what, hint string
	}{
		{plan.Selection{Uenv: "prgenv-gun"}, "'prgenv-gun' is no uenv", "did you mean 'prgenv-gnu'?"},
		{plan.Selection{Uenv: "editors", Version: "99"}, "'99' is no version of 'editors'", "there is 24.7, 25.3"},
		{plan.Selection{System: "diant"}, "'diant' is no cluster", "did you mean 'daint'?"},
		{plan.Selection{System: "daint", UArch: "zen2"}, "'zen2' is no microarchitecture of 'daint'", "there is gh200"},
	} {
		_, err := plan.Make(plan.Input{Matrix: loadMatrix(t, root), Select: c.selection})
		if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), c.what) || fault.HintOf(err) != c.hint {
			t.Errorf("%v: %v (%s)", c.selection, err, fault.HintOf(err))
		}
	}
}
