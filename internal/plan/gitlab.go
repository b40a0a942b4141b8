package plan

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

// GitLabOptions say how the jobs of a child pipeline do their work. Paths are relative
// to the top of the checkout, where jobs begin.
type GitLabOptions struct {
	Program []string // that the jobs run, with global flags; nil is uenv-ci
	Root    string   // directory that the recipes of the plan are relative to; "" is the top
	// Tag of the images: text with $VARIABLEs, "" for DefaultTag.
	Tag string
	// ParentJob is the job of the parent pipeline whose artifacts each job gets; ""
	// for none.
	ParentJob string
	Timeout   time.Duration // of each job, in whole minutes; 0 for DefaultTimeout
	// Cluster returns the cluster configuration of a job that is built with Spack; ""
	// leaves that to the site file. Nil does so for all.
	Cluster func(Job) string
	// Restricted tells of which images the job's artifacts must not show anything.
	// Nil: of none.
	Restricted func(Job) bool
	// BuildScript and TestScript are shell commands that the jobs of a stage run instead
	// of ours; "" for ours.
	BuildScript, TestScript string
	// BuildFlags and TestFlags are shell words at the end of our commands; "" for none.
	BuildFlags, TestFlags string
	Artifacts             []string // paths that all jobs keep besides
	IdleTags              []string // runner tags of the job of an empty pipeline
}

// What GitLabOptions leave open.
const (
	DefaultTag     = "$CI_PIPELINE_ID"
	DefaultTimeout = 8 * time.Hour
)

const (
	// defaultTimeLimit is what Slurm jobs get where the matrix does not say, in minutes.
	defaultTimeLimit = "180"
	// resultsDir, logsDir and reportFile are where jobs leave what becomes artifacts.
	resultsDir = "test-results"
	logsDir    = "build-logs"
	reportFile = "build-report.json"
	untested   = 9 // exit code of tests of which none ran
)

// StageJob is a job of a generated pipeline.
type StageJob struct {
	Name  string `json:"name"`
	Stage string `json:"stage"` // build or test
	Image string `json:"image"` // id of the plan's job
}

// StageJobs lists the jobs that GitLab writes for a plan.
func (p Plan) StageJobs() []StageJob {
	jobs := []StageJob{}
	for _, j := range p.Jobs {
		for _, stage := range []string{"build", "test"} {
			jobs = append(jobs, StageJob{j.stageName(stage), stage, j.ID})
		}
	}
	return jobs
}

// stageName is what the field's pipelines call a job.
func (j Job) stageName(stage string) string {
	return fmt.Sprintf("%s-%s/%s-%s/%s", stage, j.Name, j.Version, j.System, j.UArch)
}

// GitLab writes a child pipeline that builds and tests the images of the plan. The names
// of its jobs and variables are those of the field's own pipelines. The same plan gives
// the same bytes. An empty plan gives one job that says so, since GitLab refuses a
// pipeline without jobs.
func (p Plan) GitLab(o GitLabOptions) ([]byte, error) {
	o.Tag, o.Timeout = cmp.Or(o.Tag, DefaultTag), cmp.Or(o.Timeout, DefaultTimeout)
	if len(o.Program) == 0 {
		o.Program = []string{"uenv-ci"}
	}
	g := &gitlab{GitLabOptions: o, build: p.Build}
	if err := g.check(p.Jobs); err != nil {
		return nil, err
	}
	// Without rules a child of a merge request's pipeline has no jobs.
	document := yamlpos.NewMap("stages", []string{"build", "test"}, "workflow", yamlpos.NewMap("rules", []any{yamlpos.NewMap("when", "always")}))
	if len(p.Jobs) == 0 {
		document.Set("nothing-to-build", g.idle(p.Dropped))
	} else {
		document.Set(".base-build", g.base("build"))
		document.Set(".base-test", g.base("test"))
	}
	for _, j := range p.Jobs {
		document.Set(j.stageName("build"), g.buildJob(j))
		document.Set(j.stageName("test"), g.testJob(j))
	}
	data, err := yamlpos.Marshal(document, yamlpos.MarshalOptions{})
	head := fmt.Sprintf("# Written by 'uenv-ci ci generate': %d to build and test, %d left out.\n", len(p.Jobs), len(p.Dropped))
	return append([]byte(head), data...), err
}

// gitlab writes one pipeline.
type gitlab struct {
	GitLabOptions
	build Build
}

var (
	tagText = regexp.MustCompile(`^(?:[A-Za-z0-9_.-]|\$[A-Za-z_]\w*|\$\{[A-Za-z_]\w*\})+$`)
	// secretName matches the names of variables whose values are secrets.
	secretName = regexp.MustCompile(`(?i)(?:^|_)(?:PASS|PASSWD|PASSWORD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|APIKEY|(?:API|ACCESS|PRIVATE|SIGNING)_KEY|JWT|AUTH)$`)
)

// check refuses what would make a pipeline that does not work or that tells secrets.
func (g *gitlab) check(jobs []Job) error {
	if !tagText.MatchString(g.Tag) {
		return fault.New(fault.Usage, "the tag %q is neither a tag nor a variable such as %s", g.Tag, DefaultTag)
	}
	if g.Timeout < time.Minute || g.Timeout%time.Minute != 0 {
		return fault.New(fault.Usage, "the time limit %s of the jobs is not a number of minutes", g.Timeout)
	}
	for _, j := range jobs {
		for _, name := range slices.Sorted(maps.Keys(j.Variables)) {
			value := j.Variables[name]
			literal := secretName.MatchString(name) && value != "" && !strings.HasPrefix(value, "$")
			if literal || git.WithoutCredentials(value) != value {
				err := fault.New(fault.Invalid, "the variable %s of %s holds a secret, which everybody who sees the pipeline could read", name, j.ID)
				return fault.WithHint(err, "keep it in a CI/CD variable of the project and write '$%s' into the matrix", name)
			}
		}
	}
	return nil
}

// base is what all jobs of a stage have in common.
func (g *gitlab) base(stage string) *yamlpos.Map {
	m := yamlpos.NewMap("stage", stage, "timeout", minutes(g.Timeout))
	if need := g.parentNeed(); need != nil {
		m.Set("needs", []any{need})
	}
	// As text: an unquoted 00:30:00 would be a number of seconds to GitLab and of
	// minutes to Slurm.
	m.Set("variables", yamlpos.NewMap("SLURM_TIMELIMIT", yamlpos.Quoted(defaultTimeLimit)))
	return m
}

// parentNeed makes a job get the artifacts of the parent pipeline; nil for none.
func (g *gitlab) parentNeed() any {
	if g.ParentJob == "" {
		return nil
	}
	return yamlpos.NewMap("pipeline", yamlpos.Quoted("$PARENT_PIPELINE_ID"), "job", yamlpos.Quoted(g.ParentJob))
}

func (g *gitlab) buildJob(j Job) *yamlpos.Map {
	sandbox := "" // in the words of the field's scripts
	if !j.Sandbox {
		sandbox = "-w"
	}
	m := g.job(j, "build", "NO_BWRAP", sandbox, "STACK_RECIPE", path.Join(g.Root, j.Recipe))
	m.Set("script", []any{yamlpos.Quoted(cmp.Or(g.BuildScript, g.buildCommand(j)))})
	g.artifacts(m, j, reportFile, logsDir+"/")
	return m
}

func (g *gitlab) testJob(j Job) *yamlpos.Map {
	m := g.job(j, "test")
	// The need of the parent pipeline is repeated: this list replaces that of the base.
	needs := []any{yamlpos.NewMap("job", yamlpos.Quoted(j.stageName("build")), "artifacts", false)}
	if need := g.parentNeed(); need != nil {
		needs = append([]any{need}, needs...)
	}
	m.Set("needs", needs)
	m.Set("script", []any{yamlpos.Quoted(cmp.Or(g.TestScript, g.testCommand(j)))})
	if g.TestScript == "" { // without any test the pipeline warns
		m.Set("allow_failure", yamlpos.NewMap("exit_codes", []any{untested}))
	}
	if artifacts := g.artifacts(m, j, resultsDir+"/"); artifacts != nil {
		artifacts.Set("reports", yamlpos.NewMap("junit", resultsDir+"/*/junit.xml"))
	}
	return m
}

// job is the beginning of a job, with more variables by name and value.
func (g *gitlab) job(j Job, stage string, more ...string) *yamlpos.Map {
	m := yamlpos.NewMap("extends", ".base-"+stage)
	if tag := j.Runner.tag(); tag != "" {
		m.Set("tags", []any{yamlpos.Quoted(tag)})
	}
	variables := yamlpos.NewMap()
	set := func(name, value string) { variables.Set(name, yamlpos.Quoted(strings.ReplaceAll(value, "$", "$$"))) }
	set("STACK_NAME", j.Name+"/"+j.Version)
	set("STACK_SYSTEM", j.System)
	set("STACK_UARCH", j.UArch)
	set("STACK_MOUNT", j.Mount)
	for i := 0; i+1 < len(more); i += 2 {
		set(more[i], more[i+1])
	}
	variables.Set("SLURM_PARTITION", yamlpos.Quoted(j.Partition))
	for _, name := range slices.Sorted(maps.Keys(j.Variables)) {
		variables.Set(name, yamlpos.Quoted(j.Variables[name])) // with its variables, which GitLab expands
	}
	m.Set("variables", variables)
	return m
}

// tag is the tag of the GitLab runner that takes the job; "" for any.
func (r Runner) tag() string {
	if r.Kind != "" {
		return r.Kind + "-runner"
	}
	return cmp.Or(r.SlurmTag, r.BaremetalTag)
}

// artifacts makes a job keep files whether it succeeds or not; nil if it must not.
func (g *gitlab) artifacts(m *yamlpos.Map, j Job, paths ...string) *yamlpos.Map {
	if g.Restricted != nil && g.Restricted(j) {
		return nil
	}
	var list []any
	for _, path := range append(paths, g.Artifacts...) {
		list = append(list, yamlpos.Quoted(path))
	}
	artifacts := yamlpos.NewMap("when", "always", "paths", list)
	m.Set("artifacts", artifacts)
	return artifacts
}

// image names the image of a job in a shell; the parts of labels need no quotes.
func (g *gitlab) image(j Job) string {
	l := j.Label()
	l.Tag = g.Tag
	return `"` + l.String() + `"`
}

func (g *gitlab) buildCommand(j Job) string {
	words := append(g.program(), "build", g.image(j), "--recipe", shellWord(path.Join(g.Root, j.Recipe)), "--mount", shellWord(j.Mount), "--push")
	if g.Cluster != nil && j.Builder == recipe.BuilderSpack {
		if dir := g.Cluster(j); dir != "" {
			words = append(words, "--cluster", shellWord(dir))
		}
	}
	if g.build.Codec != "" {
		words = append(words, "--codec", shellWord(g.build.Codec))
	}
	if g.build.Level != 0 {
		words = append(words, "--level", strconv.Itoa(g.build.Level))
	}
	if g.build.BlockSize != 0 {
		words = append(words, "--block-size", strconv.Itoa(g.build.BlockSize))
	}
	for _, name := range g.build.Env {
		words = append(words, "--env", shellWord(name))
	}
	if !j.Sandbox {
		words = append(words, "--no-sandbox")
	}
	words = append(words, "--report", reportFile)
	if g.Restricted == nil || !g.Restricted(j) {
		words = append(words, "--logs", logsDir)
	}
	return withFlags(words, g.BuildFlags)
}

func (g *gitlab) testCommand(j Job) string {
	words := append(g.program(), "test", g.image(j), "--system", j.System)
	if j.Partition != "" {
		words = append(words, "--partition", shellWord(j.Partition))
	}
	if !j.Sandbox {
		words = append(words, "--no-sandbox")
	}
	if g.Restricted == nil || !g.Restricted(j) {
		// A directory of its own: runners may keep what an earlier job has left.
		words = append(words, "--out", `"`+resultsDir+`/$CI_JOB_ID"`)
	}
	return withFlags(words, g.TestFlags)
}

func withFlags(words []string, flags string) string {
	if flags != "" {
		words = append(words, flags)
	}
	return strings.Join(words, " ")
}

func (g *gitlab) program() []string {
	words := make([]string, len(g.Program))
	for i, word := range g.Program {
		words[i] = shellWord(word)
	}
	return words
}

// maxTold bounds how many of the jobs that are not needed a pipeline tells of.
const maxTold = 50

// idle is the job of an empty pipeline.
func (g *gitlab) idle(dropped []Dropped) *yamlpos.Map {
	lines := []string{fmt.Sprintf("nothing to build: %d left out", len(dropped))}
	for _, d := range dropped[:min(len(dropped), maxTold)] {
		lines = append(lines, d.ID+": "+d.Reason)
	}
	if more := len(dropped) - maxTold; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	script := make([]any, len(lines))
	for i, line := range lines {
		script[i] = yamlpos.Quoted("echo " + shellWord(line))
	}
	m := yamlpos.NewMap("stage", "build")
	if len(g.IdleTags) > 0 {
		m.Set("tags", g.IdleTags)
	}
	m.Set("variables", yamlpos.NewMap("GIT_STRATEGY", "none"))
	m.Set("script", script)
	return m
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// shellWord quotes text for a shell where that is needed.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// minutes writes a time as GitLab reads it.
func minutes(d time.Duration) string {
	hours, rest := int(d/time.Hour), int(d%time.Hour/time.Minute)
	switch {
	case rest == 0:
		return fmt.Sprintf("%dh", hours)
	case hours == 0:
		return fmt.Sprintf("%dm", rest)
	}
	return fmt.Sprintf("%dh %dm", hours, rest)
}
