package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

// twoJobs is a plan for a runner of FirecREST and one of Slurm.
func twoJobs(t *testing.T) Plan {
	t.Helper()
	p := mustMake(t, sample(t, Selection{Deployed: true}))
	p.Problems = fault.Problems{}
	return p
}

func pipelineOf(t *testing.T, p Plan, o GitLabOptions) (string, *yamlpos.Node) {
	t.Helper()
	text, err := p.GitLab(o)
	if err != nil {
		t.Fatal(err)
	}
	root, err := yamlpos.Parse("pipeline.yml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return string(text), root
}

const (
	daintBuild = "build-one/1-daint/gh200"
	daintTest  = "test-one/1-daint/gh200"
)

func TestGitLabJobs(t *testing.T) {
	p := twoJobs(t)
	p.Jobs[0].Variables["F7T_CLIENT_SECRET"] = "$OURS"
	text, root := pipelineOf(t, p, GitLabOptions{ParentJob: "pipeline-configure"})
	var names []string
	for _, pair := range root.Pairs {
		names = append(names, pair.Key.Raw)
	}
	want := "stages workflow .base-build .base-test " + daintBuild + " " + daintTest + " build-one/1-eiger/zen2 test-one/1-eiger/zen2"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("jobs %s", got)
	}
	variables := map[string]string{}
	for _, v := range root.Get(daintBuild).Get("variables").Pairs {
		variables[v.Key.Raw] = v.Value.Raw
	}
	wanted := map[string]string{
		"STACK_NAME": "one/1", "STACK_SYSTEM": "daint", "STACK_UARCH": "gh200", "STACK_MOUNT": "/user-environment",
		"STACK_RECIPE": "recipes/one/a", "NO_BWRAP": "", "SLURM_PARTITION": "normal", "SLURM_ACCOUNT": "own",
		"CSCS_RUNNER_MODE": "baremetal", "FIRECREST_SYSTEM": "daint", "F7T_URL": "https://firecrest.cscs.ch",
		"F7T_TOKEN_URL":     "https://auth.cscs.ch/auth/realms/firecrest-clients/protocol/openid-connect/token",
		"F7T_CLIENT_SECRET": "$OURS",
	}
	if !maps.Equal(variables, wanted) {
		t.Errorf("variables %v", variables)
	}
	for at, want := range map[string]string{
		daintBuild + " script 0": `uenv-ci build "one/1:$CI_PIPELINE_ID@daint%gh200" --recipe recipes/one/a --mount /user-environment --push --report build-report.json --logs build-logs`,
		daintTest + " script 0":  `uenv-ci test "one/1:$CI_PIPELINE_ID@daint%gh200" --system daint --partition normal --out "test-results/$CI_JOB_ID"`,
		daintBuild + " tags 0":   "f7t-runner", "test-one/1-eiger/zen2 tags 0": "slurm",
		"build-one/1-eiger/zen2 variables NO_BWRAP": "-w",
		".base-build timeout":                       "8h", ".base-test variables SLURM_TIMELIMIT": "180",
		".base-build needs 0 pipeline": "$PARENT_PIPELINE_ID", ".base-build needs 0 job": "pipeline-configure",
		daintTest + " needs 0 pipeline": "$PARENT_PIPELINE_ID", daintTest + " needs 0 job": "pipeline-configure",
		daintTest + " needs 1 job":             daintBuild,
		daintTest + " artifacts when":          "always",
		daintTest + " artifacts reports junit": "test-results/*/junit.xml",
		daintBuild + " artifacts when":         "always",
	} {
		if got := at0(root, strings.Fields(at)); got != want {
			t.Errorf("%s: %s", at, got)
		}
	}
	if script := at0(root, strings.Fields("build-one/1-eiger/zen2 script 0")); !strings.Contains(script, " --no-sandbox ") {
		t.Errorf("without a sandbox: %s", script)
	}
	if again, _ := pipelineOf(t, p, GitLabOptions{ParentJob: "pipeline-configure"}); again != text {
		t.Error("the same plan gives another pipeline")
	}
}

// at0 is the text at a path in a document.
func at0(n *yamlpos.Node, path []string) string {
	for _, key := range path {
		if index := 0; n != nil && n.Kind == yamlpos.Sequence {
			fmt.Sscan(key, &index)
			if index >= len(n.Items) {
				return "nothing"
			}
			n = n.Items[index]
			continue
		}
		n = n.Get(key)
	}
	if n == nil {
		return "nothing"
	}
	return n.Raw
}

// Values are text to every reader, and our own are not expanded.
func TestGitLabVariablesAreText(t *testing.T) {
	p := twoJobs(t)
	p.Jobs[0].Variables = map[string]string{"SLURM_TIMELIMIT": "00:30:00", "GRES": "1,000", "E": "1e3", "FLAG": "no", "N": "64", "ANY": "it's: #1"}
	p.Jobs[0].Recipe = "recipes/$one/it's"
	text, root := pipelineOf(t, p, GitLabOptions{Root: "ci"})
	for name, want := range p.Jobs[0].Variables {
		if v := root.Get(daintBuild).Get("variables").Get(name); v == nil || !v.Quoted || v.Raw != want {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if got := root.Get(daintBuild).Get("variables").Get("STACK_RECIPE").Raw; got != "ci/recipes/$$one/it's" {
		t.Errorf("recipe %s", got)
	}
	if !strings.Contains(text, `--recipe ''ci/recipes/$one/it''\''''s''`) { // quoted for the shell, then for YAML
		t.Error(text)
	}
}

func TestGitLabOptions(t *testing.T) {
	p := twoJobs(t)
	p.Build = Build{Codec: "gzip", Level: 9, BlockSize: 4096, Env: []string{"A"}}
	_, root := pipelineOf(t, p, GitLabOptions{
		Program: []string{"./uenv-ci", "--site", "a b.yaml"}, Tag: "v${X}-1", Timeout: 90 * time.Minute,
		Cluster:    func(j Job) string { return "clusters/" + j.System },
		Restricted: func(j Job) bool { return j.System == "daint" }, TestScript: "stage-test -n $STACK_NAME",
		BuildFlags: "--engine stackinator",
	})
	want := `./uenv-ci --site 'a b.yaml' build "one/1:v${X}-1@daint%gh200" --recipe recipes/one/a --mount /user-environment --push --cluster clusters/daint` +
		` --codec gzip --level 9 --block-size 4096 --env A --report build-report.json --engine stackinator`
	if got := at0(root, strings.Fields(daintBuild+" script 0")); got != want {
		t.Errorf("build %s", got)
	}
	for at, want := range map[string]string{
		daintTest + " script 0": "stage-test -n $STACK_NAME", daintTest + " allow_failure": "nothing",
		daintTest + " needs 0 job": daintBuild, ".base-build needs": "nothing", ".base-build timeout": "1h 30m",
		daintTest + " artifacts": "nothing", daintBuild + " artifacts": "nothing", "test-one/1-eiger/zen2 artifacts when": "always",
	} {
		if got := at0(root, strings.Fields(at)); got != want {
			t.Errorf("%s: %s", at, got)
		}
	}
}

func TestGitLabRefuses(t *testing.T) {
	for name, change := range map[string]func(*Plan, *GitLabOptions){
		"tag":          func(_ *Plan, o *GitLabOptions) { o.Tag = "$(id)" },
		"quotes":       func(_ *Plan, o *GitLabOptions) { o.Tag = `1"; id; "` },
		"short":        func(_ *Plan, o *GitLabOptions) { o.Timeout = time.Second },
		"odd":          func(_ *Plan, o *GitLabOptions) { o.Timeout = 90 * time.Second },
		"secret":       func(p *Plan, _ *GitLabOptions) { p.Jobs[0].Variables["F7T_CLIENT_SECRET"] = "hush" },
		"token":        func(p *Plan, _ *GitLabOptions) { p.Jobs[1].Variables["token"] = "hush" },
		"secret in it": func(p *Plan, _ *GitLabOptions) { p.Jobs[0].Variables["URL"] = "https://me:hush@example.org" },
	} {
		p, o := twoJobs(t), GitLabOptions{}
		change(&p, &o)
		text, err := p.GitLab(o)
		if err == nil || strings.Contains(err.Error(), "hush") || text != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

func TestGitLabEmpty(t *testing.T) {
	p := Plan{Format: Format, Dropped: []Dropped{{ID: "one/1@daint%gh200", Reason: "it's built"}}}
	_, root := pipelineOf(t, p, GitLabOptions{IdleTags: []string{"light"}})
	job := root.Get("nothing-to-build")
	if at0(job, []string{"script", "0"}) != "echo 'nothing to build: 1 left out'" || at0(job, []string{"tags", "0"}) != "light" ||
		at0(job, []string{"script", "1"}) != `echo 'one/1@daint%gh200: it'\''s built'` || len(root.Pairs) != 3 {
		t.Errorf("%v", root.Data())
	}
	for range maxTold {
		p.Dropped = append(p.Dropped, p.Dropped[0])
	}
	_, root = pipelineOf(t, p, GitLabOptions{})
	if script := root.Get("nothing-to-build").Get("script"); len(script.Items) != maxTold+2 || script.Items[maxTold+1].Raw != "echo 'and 1 more'" {
		t.Errorf("%d lines", len(script.Items))
	}
}

func encoded(t testing.TB, p Plan) string {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseReadsWhatWasWritten(t *testing.T) {
	p := mustMake(t, sample(t, Selection{Deployed: true})) // with problems
	p.Build = Build{Level: 3, Env: []string{"A"}}
	got, err := Parse(strings.NewReader(encoded(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Jobs {
		p.Jobs[i].parts = nil // not written
	}
	if !reflect.DeepEqual(got, p) {
		t.Errorf("got  %+v\nwant %+v", got, p)
	}
}

func TestParseRefuses(t *testing.T) {
	valid := encoded(t, twoJobs(t))
	for name, change := range map[string][2]string{
		"no JSON":        {`{"format":1`, `{`},
		"newer":          {`"format":1`, `"format":2`},
		"no format":      {`"format":1`, `"form":1`},
		"other id":       {`"id":"one/1@daint%gh200"`, `"id":"one/1@daint%zen2"`},
		"command":        {`"name":"one"`, `"name":"one$(id)"`},
		"path":           {`"recipe":"recipes/one/a"`, `"recipe":"../../etc"`},
		"absolute":       {`"recipe":"recipes/one/a"`, `"recipe":"/etc"`},
		"line":           {`"recipe":"recipes/one/a"`, `"recipe":"recipes\nid"`},
		"mount":          {`"mount":"/user-environment"`, `"mount":"/etc"`},
		"variable":       {`"SLURM_ACCOUNT":`, `"SLURM ACCOUNT":`},
		"key":            {`"key":"`, `"key":"x`},
		"builder":        {`"builder":"spack"`, `"builder":"make"`},
		"twice":          {`eiger`, `daint`},
		"two documents":  {`{"format":1`, `{"format":1}{"format":1`},
		"something else": {valid, `[]`},
	} {
		text := strings.ReplaceAll(valid, change[0], change[1])
		if name == "twice" {
			text = strings.ReplaceAll(text, "zen2", "gh200")
		}
		if text == valid {
			t.Fatalf("%s: nothing changed in %s", name, valid)
		}
		if _, err := Parse(strings.NewReader(text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnly(t *testing.T) {
	p := twoJobs(t).Only(Selection{System: "daint"})
	if ids(p) != "one/1@daint%gh200" || len(p.Dropped) != 1 || p.Dropped[0].Reason != "not selected" {
		t.Errorf("%+v", p)
	}
}

// FuzzParse: whatever is accepted makes a pipeline that is YAML.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"jobs":[{"id":"a/1@b%c","name":"a","version":"1","system":"b","uarch":"c","recipe":"r","builder":"script","mount":"/m","variables":{"A":"$B"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		text, err := p.GitLab(GitLabOptions{})
		if err != nil {
			return
		}
		if _, err := yamlpos.Parse("pipeline.yml", text); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}
