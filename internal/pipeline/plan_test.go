package pipeline_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
)

// smallMatrix writes a matrix of two uenvs on one cluster whose recipes pin
// commits, so that nothing has to be asked for.
func smallMatrix(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	commit := strings.Repeat("0123456789", 4)
	config := "name: NAME\nversion: 2\nspack: {repo: 'https://example.org/s', commit: '" + commit + "', packages: {repo: 'https://example.org/p', commit: '" + commit + "'}}\n"
	files := map[string]string{
		"config.yaml": `clusters:
  demo: {targets: [{uarch: zen2, partition: normal}], runner: f7t}
uenvs:
  tools: {"1": {recipes: {zen2: mc}, deploy: {demo: [zen2]}}}
  more: {"2": {recipes: {zen2: mc}, deploy: {demo: [zen2]}}}
`,
		"clusters/demo/packages.yaml": "packages: {gcc: {externals: []}}\n",
	}
	for _, name := range []string{"tools", "more"} {
		files["recipes/"+name+"/mc/config.yaml"] = strings.Replace(config, "NAME", name, 1)
		files["recipes/"+name+"/mc/compilers.yaml"] = "gcc: {version: '13'}\n"
		files["recipes/"+name+"/mc/environments.yaml"] = "tools: {compiler: [gcc], specs: [zlib]}\n"
	}
	writeTree(t, root, files)
	return root
}

func smallPlan(t *testing.T, root string, change func(*pipeline.PlanOptions)) plan.Plan {
	t.Helper()
	o := pipeline.PlanOptions{
		Matrix: filepath.Join(root, "config.yaml"), Select: plan.Selection{Deployed: true}, Namespace: "build", Offline: true,
		ClusterFor: func(system string, _ int) string { return filepath.Join(root, "clusters", system) },
	}
	change(&o)
	p, err := pipeline.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ids(jobs []plan.Job) string {
	var list []string
	for _, j := range jobs {
		list = append(list, j.ID+" "+strings.Join(j.Reasons, "; "))
	}
	return strings.Join(list, "\n")
}

func same(*pipeline.PlanOptions) {}

// A job is left out only if the registry has an image with the whole key.
func TestPlanLeavesOutWhatIsBuilt(t *testing.T) {
	root := smallMatrix(t)
	jobs := smallPlan(t, root, same).Jobs
	if len(jobs) != 2 || len(jobs[0].Key) != 64 {
		t.Fatalf("jobs %+v", jobs)
	}
	reg, err := registry.Open("oci:"+filepath.Join(t.TempDir(), "registry"), registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	withRegistry := func(o *pipeline.PlanOptions) { o.Registry = always(reg) }
	if p := smallPlan(t, root, withRegistry); len(p.Jobs) != 2 {
		t.Errorf("an empty registry: %s, dropped %v", ids(p.Jobs), p.Dropped)
	}
	if p := smallPlan(t, root, same); p.Registry != "" {
		t.Errorf("no registry was asked, but %q", p.Registry)
	}
	digest := publishKey(t, reg, jobs[0], jobs[0].Key)
	// Of the other there is only an image whose key begins in the same way.
	publishKey(t, reg, jobs[1], jobs[1].Key[:32]+strings.Repeat("0", 32))
	p := smallPlan(t, root, withRegistry)
	if ids(p.Jobs) != "more/2@demo%zen2 selected: everything deployed" || p.Registry != reg.String() {
		t.Errorf("jobs %s, registry %q", ids(p.Jobs), p.Registry)
	}
	want := "already built: build-keys/demo/zen2/tools/1@" + digest
	if len(p.Dropped) != 1 || p.Dropped[0].ID != "tools/1@demo%zen2" || p.Dropped[0].Reason != want {
		t.Errorf("dropped %+v, want %s", p.Dropped, want)
	}
	if p := smallPlan(t, root, func(o *pipeline.PlanOptions) { o.Registry, o.Namespace = always(reg), "build-pr" }); len(p.Jobs) != 2 {
		t.Errorf("keys of another namespace were believed: %v", p.Dropped)
	}
}

func always(reg *registry.Registry) func(label.Label) (*registry.Registry, error) {
	return func(label.Label) (*registry.Registry, error) { return reg, nil }
}

// publishKey puts an image with a key under the tag of a job's key.
func publishKey(t *testing.T, reg *registry.Registry, j plan.Job, key string) string {
	t.Helper()
	repo, err := reg.Repository(j.Label().WithNamespace("build-keys").Repository())
	if err != nil {
		t.Fatal(err)
	}
	d, err := repo.Push(t.Context(), registry.Artifact{
		Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "application/octet-stream", []byte(key))},
		Annotations: map[string]string{meta.AnnotationKey: key},
	})
	if err == nil {
		err = repo.Tag(t.Context(), d, plan.KeyTag(key))
	}
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest.String()
}

func TestPlanDoesNotTakeAFailingRegistryForAnEmptyOne(t *testing.T) {
	root := smallMatrix(t)
	reg, err := registry.Open("127.0.0.1:1", registry.Options{Retry: registry.RetryOptions{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pipeline.Plan(t.Context(), pipeline.PlanOptions{
		Matrix: filepath.Join(root, "config.yaml"), Namespace: "build", Offline: true, Registry: always(reg),
		ClusterFor: func(system string, _ int) string { return filepath.Join(root, "clusters", system) },
	})
	if fault.KindOf(err) != fault.Network || !strings.Contains(err.Error(), "tools/1@demo%zen2") && !strings.Contains(err.Error(), "more/2@demo%zen2") {
		t.Errorf("got %v", err)
	}
}

func TestPlanSince(t *testing.T) {
	root := smallMatrix(t)
	commitAll(t, root, "first")
	since := func(o *pipeline.PlanOptions) { o.Since = "HEAD" }
	if p := smallPlan(t, root, since); len(p.Jobs) != 0 || len(p.Dropped) != 2 || p.Dropped[0].Reason != "unchanged since HEAD" {
		t.Errorf("nothing changed: %s, dropped %v", ids(p.Jobs), p.Dropped)
	}
	writeTree(t, root, map[string]string{"recipes/tools/mc/environments.yaml": "tools: {compiler: [gcc], specs: [bzip2]}\n"})
	if got := ids(smallPlan(t, root, since).Jobs); got != "tools/1@demo%zen2 changed: recipes/tools/mc/environments.yaml" {
		t.Errorf("a recipe changed: %s", got)
	}
	commitAll(t, root, "second")
	if p := smallPlan(t, root, since); len(p.Jobs) != 0 {
		t.Errorf("since the change: %s", ids(p.Jobs))
	}
	if got := ids(smallPlan(t, root, func(o *pipeline.PlanOptions) { o.Since = "HEAD~1" }).Jobs); got != "tools/1@demo%zen2 changed: recipes/tools/mc/environments.yaml" {
		t.Errorf("since before the change: %s", got)
	}
	// The cluster configuration is in the same repository, and counts too.
	writeTree(t, root, map[string]string{"clusters/demo/network.yaml": "mpi: {}\n"})
	want := "tools/1@demo%zen2 added: network.yaml of the cluster configuration of demo\n" +
		"more/2@demo%zen2 added: network.yaml of the cluster configuration of demo"
	if got := ids(smallPlan(t, root, since).Jobs); got != want {
		t.Errorf("a cluster changed: %s", got)
	}
}

func TestPlanSinceARevisionWithoutMatrix(t *testing.T) {
	root := smallMatrix(t)
	text, err := os.ReadFile(filepath.Join(root, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, before := range []string{"", "uenvs: 1\n"} {
		if err := os.Remove(filepath.Join(root, "config.yaml")); err != nil {
			t.Fatal(err)
		}
		if before != "" {
			writeTree(t, root, map[string]string{"config.yaml": before})
		}
		commitAll(t, root, "first")
		writeTree(t, root, map[string]string{"config.yaml": string(text)})
		p := smallPlan(t, root, func(o *pipeline.PlanOptions) { o.Since = "HEAD" })
		if ids(p.Jobs) != "tools/1@demo%zen2 new since HEAD\nmore/2@demo%zen2 new since HEAD" {
			t.Errorf("before %q: %s", before, ids(p.Jobs))
		}
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "uenv-ci-since-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	_, err = pipeline.Plan(t.Context(), pipeline.PlanOptions{Matrix: filepath.Join(root, "config.yaml"), Offline: true, Since: "no-such"})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
	_, err = pipeline.Plan(t.Context(), pipeline.PlanOptions{Matrix: filepath.Join(smallMatrix(t), "config.yaml"), Offline: true, Since: "HEAD"})
	if fault.KindOf(err) != fault.Usage {
		t.Errorf("outside of git: %v", err)
	}
}

func commitAll(t *testing.T, dir, message string) {
	t.Helper()
	if _, ok := proc.Look("git"); !ok {
		t.Skip("git is not installed")
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "--allow-empty", "-m", message}} {
		env := append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
			"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		if err := (proc.Cmd{Path: "git", Args: append([]string{"-C", dir}, args...), Env: env}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Branches are resolved, once each for all jobs; what cannot be resolved is told
// once, and its jobs are planned without a key.
func TestPlanResolvesBranches(t *testing.T) {
	root := smallMatrix(t)
	spack := t.TempDir()
	commitAll(t, spack, "first")
	for _, name := range []string{"tools", "more"} {
		config := filepath.Join(root, "recipes", name, "mc", "config.yaml")
		writeTree(t, root, map[string]string{"recipes/" + name + "/mc/config.yaml": "name: x\nversion: 2\nspack: {repo: 'file://" + spack + "', commit: null, packages: {repo: 'file://" + spack + "/gone', commit: main}}\n"})
		if _, err := os.Stat(config); err != nil {
			t.Fatal(err)
		}
	}
	var warnings []string
	p := smallPlan(t, root, func(o *pipeline.PlanOptions) {
		o.Offline = false
		o.Events = func(e event.Event) { warnings = append(warnings, e.Message) }
	})
	if len(p.Jobs) != 2 || len(p.Jobs[0].Sources[0].Commit) != 40 || p.Jobs[0].Key != "" || len(p.Jobs[0].Unresolved) != 1 {
		t.Errorf("jobs %+v", p.Jobs)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "/gone") {
		t.Errorf("warnings %q", warnings)
	}
	if p := smallPlan(t, root, same); len(p.Jobs[0].Unresolved) != 2 {
		t.Errorf("offline: unresolved %v", p.Jobs[0].Unresolved)
	}
}

// How images are packed, and what their builds see, is part of the key.
func TestPlanKeysDependOnPackingAndVariables(t *testing.T) {
	root := smallMatrix(t)
	seen := map[string]string{}
	for name, change := range map[string]func(*pipeline.PlanOptions){
		"as it is": same, "level": func(o *pipeline.PlanOptions) { o.Pack.Level = 9 },
		"block size": func(o *pipeline.PlanOptions) { o.Pack.BlockSize = 1 << 20 },
		"variables":  func(o *pipeline.PlanOptions) { o.Variables = map[string]string{"A": "b"} },
	} {
		key := smallPlan(t, root, change).Jobs[0].Key
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[key] = name
	}
	_, err := pipeline.Plan(t.Context(), pipeline.PlanOptions{Matrix: filepath.Join(root, "nothing.yaml"), Offline: true})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("no matrix: %v", err)
	}
}

// Every deployment of the field's matrix is planned but the one without a recipe.
func TestPlanOfTheRealMatrix(t *testing.T) {
	p, err := pipeline.Plan(t.Context(), pipeline.PlanOptions{
		Matrix: filepath.Join(realMatrix(t), "config.yaml"), Select: plan.Selection{Deployed: true},
		ClusterFor: corpusClusters(t), Offline: true,
	})
	if err != nil || len(p.Jobs) != 145 || len(p.Problems.Errors()) != 1 {
		t.Errorf("%d jobs, problems %v, error %v", len(p.Jobs), p.Problems, err)
	}
	var problems fault.Problems
	if !errors.As(p.Problems.Err(), &problems) || !slices.ContainsFunc(problems, func(q fault.Problem) bool { return q.Line == 363 }) {
		t.Errorf("problems %v", p.Problems)
	}
}

// Two uenvs of one recipe have one key, and are two images nevertheless.
func TestPlanKeepsTheTwinOfWhatIsBuilt(t *testing.T) {
	root := smallMatrix(t)
	writeTree(t, root, map[string]string{"config.yaml": `clusters:
  demo: {targets: [{uarch: zen2, partition: normal}], runner: f7t}
uenvs:
  tools: {"1": {recipes: {zen2: mc}, deploy: {demo: [zen2]}}, "2": {recipes: {zen2: mc}, deploy: {demo: [zen2]}}}
`})
	jobs := smallPlan(t, root, same).Jobs
	if len(jobs) != 2 || jobs[0].Key != jobs[1].Key {
		t.Fatalf("jobs %+v", jobs)
	}
	reg, err := registry.Open("oci:"+filepath.Join(t.TempDir(), "registry"), registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	publishKey(t, reg, jobs[0], jobs[0].Key)
	p := smallPlan(t, root, func(o *pipeline.PlanOptions) { o.Registry = always(reg) })
	if len(p.Jobs) != 1 || p.Jobs[0].ID != jobs[1].ID || len(p.Dropped) != 1 {
		t.Errorf("jobs %s, dropped %+v", ids(p.Jobs), p.Dropped)
	}
}
