package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/scratch"
	"uenv-ci.dev/internal/slurm"
	"uenv-ci.dev/internal/squashfs"
)

func ciRunCommand() *command {
	return &command{
		name: "run", usage: "build, publish and test the images of a plan on this machine",
		details: `The jobs run in the order of the plan, each as 'build --push' and 'test' would do it;
the tests in Slurm jobs if the site file says so.
Images that the registry already has, by content key, are not built again, and those
that passed their tests are not tested again: repeat a run that failed or was stopped,
and it does what is missing. After a failure no further job begins, unless --keep-going
is given; an image without tests does not stop the others. The exit code is that of the
worst job: the first in the table of exit codes. Reports, logs and test results are kept
below --out, in a directory for each image. With --offline the builds have no network
either.`,
		examples: `uenv-ci ci run --since origin/main --system daint --uarch gh200
# everything that another machine has planned for this one, two at a time
uenv-ci --site site.yaml ci run --plan plan.json --system daint --jobs 2 --keep-going`,
		flags: slices.Concat(madePlanFlags(), []cli.Flag{
			&cli.StringFlag{Name: "tag", Usage: "the `TAG` of the images (else CI_PIPELINE_ID, else the first 12 digits of each image's content key)"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "run `N` jobs at once, which share the processors", Value: 1},
			&cli.BoolFlag{Name: "keep-going", Aliases: []string{"k"}, Usage: "begin the other jobs too after one has failed"},
			&cli.BoolFlag{Name: "rebuild", Usage: "build and test also what the registry has already"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "keep reports, logs and test results below `DIR`", Value: "ci-results"},
			&cli.StringFlag{Name: "waivers", Usage: "read known failures of tests from `FILE`"},
			&cli.DurationFlag{Name: "timeout", Usage: "end the tests of an image after `TIME`, such as 30m"},
		}, machineFlags()),
		run: runCI,
	}
}

func runCI(ctx context.Context, in *invocation) (result, error) {
	if in.Int("jobs") < 1 {
		return nil, in.ciUsage("--jobs %d is not a number of jobs", in.Int("jobs"))
	}
	if _, err := in.registryAddress(); err != nil {
		return nil, err
	}
	p, err := in.planToRun(ctx)
	if err != nil {
		return nil, err
	}
	if err := in.checkMachine(p); err != nil {
		return nil, err
	}
	if in.String("engine") == build.EngineStackinator { // whose images have no keys
		for i := range p.Jobs {
			p.Jobs[i].Key, p.Jobs[i].Unresolved = "", []string{"stackinator's own version is not part of a key"}
		}
	}
	repository, err := in.repository()
	if err != nil {
		return nil, err
	}
	r := &planRunner{invocation: in, plan: p, repository: repository}
	if r.cluster, err = in.namedClusters(); err != nil {
		return nil, err
	}
	ran, err := pipeline.Run(ctx, p, pipeline.RunOptions{
		Jobs: in.Int("jobs"), KeepGoing: in.Bool("keep-going"), Label: r.label, Build: r.build, Test: r.test, Events: r.events(),
	})
	return runResultOf(ran), err
}

// planToRun is the plan, with what the registry has already: it may not be tested.
func (in *invocation) planToRun(ctx context.Context) (plan.Plan, error) {
	if in.String("plan") != "" {
		return in.wantedPlan(ctx)
	}
	o, err := in.planOptions()
	if err != nil {
		return plan.Plan{}, err
	}
	o.Registry = nil
	made, err := pipeline.Plan(ctx, o)
	if err != nil {
		return made, err
	}
	return made, isComplete(made)
}

// checkMachine refuses jobs of another cluster, unless their cluster was asked for.
func (in *invocation) checkMachine(p plan.Plan) error {
	here := in.getenv("CLUSTER_NAME")
	if here == "" || in.String("system") != "" {
		return nil
	}
	for _, j := range p.Jobs {
		if j.System != here {
			err := fault.New(fault.Usage, "%s is built on %s, but this is %s", j.ID, j.System, here)
			return fault.WithHint(err, "--system %s selects what is built here", here)
		}
	}
	return nil
}

// planRunner says how the jobs of a plan are done, by flags and site file.
type planRunner struct {
	*invocation
	plan       plan.Plan
	repository string
	cluster    func(plan.Job) string // where flags say; nil leaves that to the site file
}

// events shows those of several jobs at once without bars, which would share a line.
func (r *planRunner) events() event.Sink {
	if r.Int("jobs") == 1 || !isTerminal(r.stderr) {
		return r.invocation.events
	}
	return func(e event.Event) {
		if e.Kind != event.Progress {
			r.invocation.events(e)
		}
	}
}

// telling is the same of which everything it does is told as events.
func (r *planRunner) telling(events event.Sink) *planRunner {
	in, one := *r.invocation, *r
	in.events, one.invocation = events, &in
	return &one
}

func (r *planRunner) label(j plan.Job) (label.Label, error) {
	l := j.Label().WithNamespace(r.invocation.build())
	l.Tag = cmp.Or(r.String("tag"), r.getenv("CI_PIPELINE_ID"), j.Key[:min(len(j.Key), 12)])
	switch {
	case l.Tag == "":
		return l, fault.WithHint(fault.New(fault.Usage, "%s has no content key to be its tag: %s", j.ID, strings.Join(j.Unresolved, "; ")), "give it one with --tag")
	case !label.Valid(l.Tag):
		return l, fault.New(fault.Usage, "%q cannot be a tag", l.Tag)
	}
	return l, r.refuseDeploy(l)
}

func (r *planRunner) build(ctx context.Context, j plan.Job, l label.Label, events event.Sink) (pipeline.BuildImageOptions, error) {
	r = r.telling(events)
	dir := r.dir(j)
	o := pipeline.BuildImageOptions{
		Versions: buildVersions(), Invocation: r.getenv("CI_JOB_URL"), ReportFile: filepath.Join(dir, pipeline.BuildReportFile), ReportAlways: true,
	}
	release, err := claim(dir)
	if err != nil {
		return o, err
	}
	context.AfterFunc(ctx, release)
	t := toBuild{
		recipe: filepath.Join(r.repository, filepath.FromSlash(j.Recipe)), mount: j.Mount, system: j.System, uarch: j.UArch,
		logs: filepath.Join(dir, "logs"), jobs: r.compilations(),
	}
	if r.cluster != nil {
		t.cluster = r.cluster(j)
	}
	if o.Build, err = r.optionsFor(ctx, t); err != nil {
		return o, err
	}
	if o.Pack, err = r.packOptions(ctx, o.Build.Recipe); err != nil {
		return o, err
	}
	if err := r.asPlanned(&o); err != nil {
		return o, err
	}
	o.Pack.Base = r.lastImage(ctx, l, o.Pack)
	o.Build.NoSandbox = !j.Sandbox
	o.Build.Events = events
	if err := r.limit(&o.Build, l, o.ReportFile); err != nil {
		return o, err
	}
	o.Unpublished = unpublishedFile(l, o.ReportFile)
	o.Key = pipeline.KeyOptions{Variables: r.variables(o.Build.Env), PerChange: r.perChange(), Rebuild: r.Bool("rebuild"), Offline: r.Bool("offline")}
	o.Push, err = r.registryFor(l)
	return o, err
}

// asPlanned sets what the keys of the plan hold of all builds.
func (r *planRunner) asPlanned(o *pipeline.BuildImageOptions) error {
	b := r.plan.Build
	if b.Codec != "" {
		var err error
		if o.Pack.Codec, err = squashfs.ParseCodec(b.Codec); err != nil {
			return fault.Wrap(fault.Invalid, err, "the plan")
		}
	}
	o.Pack.Level, o.Pack.BlockSize = cmp.Or(b.Level, o.Pack.Level), cmp.Or(b.BlockSize, o.Pack.BlockSize)
	o.Build.Env = b.Env
	return nil
}

// compilations is how many of them each job runs at once, if several jobs share this
// machine and the site file does not say; 0 leaves it to the build.
func (r *planRunner) compilations() int {
	if r.Int("jobs") == 1 || r.site.Build.Jobs > 0 {
		return 0
	}
	return max(runtime.GOMAXPROCS(0)/r.Int("jobs"), 1)
}

func (r *planRunner) test(ctx context.Context, j plan.Job, events event.Sink) (pipeline.TestOptions, *scratch.Dir, error) {
	r = r.telling(events)
	o, err := r.testOptions()
	if err != nil {
		return o, nil, err
	}
	o.Out = filepath.Join(r.dir(j), "tests")
	if err := os.RemoveAll(o.Out); err != nil { // of an earlier run
		return o, nil, fault.Wrap(fault.Usage, err, "keep the results")
	}
	o.Run.System, o.Run.UArch, o.Run.Partition = j.System, j.UArch, j.Partition
	o.Run.NoSandbox, o.Run.Restricted = !j.Sandbox, r.site.Uenv(j.Name).Restricted
	work, err := r.testScratch(&o)
	if err != nil {
		return o, nil, err
	}
	if err = r.prepareJob(ctx, &o, work.Path()); err == nil {
		err = r.jobSettings(&o)
	}
	if err != nil {
		return o, nil, errors.Join(err, work.Remove())
	}
	if o.Slurm != nil {
		ofJob := slurm.FromVariables(func(name string) string { return j.Variables[name] })
		o.Slurm.Settings = o.Slurm.Settings.Over(ofJob).Over(slurm.Settings{"partition": j.Partition})
	}
	return o, work, nil
}

// runResult is what became of a plan, with exit codes.
type runResult struct {
	Jobs    []ranJob       `json:"jobs"`
	Dropped []plan.Dropped `json:"dropped"`
	Seconds float64        `json:"seconds"`
}

type ranJob struct {
	pipeline.RanJob
	Code int `json:"code"` // exit code for this job alone
}

func runResultOf(ran pipeline.Ran) runResult {
	r := runResult{Jobs: []ranJob{}, Dropped: ran.Dropped, Seconds: ran.Seconds}
	for _, j := range ran.Jobs {
		r.Jobs = append(r.Jobs, ranJob{j, exitCode(j.Err())})
	}
	return r
}

func (r runResult) text(p *printer) {
	if len(r.Jobs) == 0 {
		p.printf("nothing to build, %d left out", len(r.Dropped))
		return
	}
	var rows [][]string
	for _, j := range r.Jobs {
		name := j.ID
		if j.Label.Name != "" {
			name = j.Label.String()
		}
		seconds := ""
		if j.Seconds > 0 {
			seconds = formatSeconds(j.Seconds)
		}
		rows = append(rows, []string{name, p.ranState(j.Build), p.ranTests(j.RanJob), seconds})
	}
	p.table([]string{"IMAGE", "BUILD", "TESTS", "TIME"}, rows, 3)
	counts := map[string]int{}
	for _, j := range r.Jobs {
		counts[j.Build]++
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[state], state))
	}
	p.printf("%s: %s; %s", plural(len(r.Jobs), "image"), strings.Join(parts, ", "), formatSeconds(r.Seconds))
	for _, j := range r.Jobs {
		hint := ""
		if j.Hint != "" {
			hint = " (" + j.Hint + ")"
		}
		if j.Error != "" {
			p.printf("%s  %s%s", p.red(j.ID), j.Error, hint)
		}
	}
}

// ranState writes a part of a job in its colour.
func (p *printer) ranState(state string) string {
	switch state {
	case pipeline.Built, pipeline.Existing:
		return p.green(state)
	case pipeline.NotRun:
		return p.dim(state)
	}
	return p.red(state)
}

func (p *printer) ranTests(j pipeline.RanJob) string {
	switch {
	case slices.Contains([]string{pipeline.NotRun, pipeline.Broken, pipeline.Stopped}, j.Tests):
		return p.ranState(j.Tests)
	case j.Counts.Total == 0:
		return p.verdict(meta.State(j.Tests))
	}
	text := fmt.Sprintf("%s %d/%d", p.verdict(meta.State(j.Tests)), j.Counts.Passed, j.Counts.Total)
	if j.TestedBefore {
		text += ", before"
	}
	return text
}
