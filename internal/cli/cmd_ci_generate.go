package cli

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
)

func ciGenerateCommand() *command {
	return &command{
		name: "generate", usage: "write a plan as the child pipeline of a GitLab pipeline",
		details: `Each image of the plan gets a job that builds and pushes it and one that tests it. Names,
variables, runner tags and time limits are those of the field's own pipelines, from the
matrix; its $VARIABLES are left to GitLab. The pipeline that triggers this one sets
PARENT_PIPELINE_ID to its $CI_PIPELINE_ID. --site, --registry, --ca-file and --plain-http
are handed on to the jobs; credentials are not, they come from the jobs' environment.
Without anything to build there is one job that says so. A test job of which no test
ran ends with a warning.`,
		examples: `uenv-ci --site site.yaml ci generate --since origin/main --out pipeline.yml
# from a plan that was looked at before
uenv-ci ci plan --all --format json > plan.json
uenv-ci ci generate --plan plan.json --program ./uenv-ci --out pipeline.yml
# recipes for Spack 1.x
uenv-ci ci generate --all --build-flags '--engine stackinator --stackinator $HOME/stackinator-v7' --out pipeline.yml
# only plan and build with this program, test with another
uenv-ci ci generate --uenv prgenv-gnu/25.11 --system daint --uarch gh200 --out pipeline.yml \
  --test-script './uenv-pipeline/stage-test -n $STACK_NAME -s $STACK_SYSTEM -m $STACK_MOUNT -u $STACK_UARCH'`,
		flags: append(madePlanFlags(),
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write the pipeline to `FILE` (else to standard output)"},
			&cli.StringFlag{Name: "program", Usage: "`FILE` of this program where jobs run, such as an artifact of --parent-job", Value: programName},
			&cli.StringFlag{Name: "tag", Usage: "tag of the images: `TEXT` in which jobs expand variables", Value: plan.DefaultTag},
			&cli.StringFlag{Name: "parent-job", Usage: "the `JOB` of the parent pipeline whose artifacts each job gets ('' for none)", Value: "pipeline-configure"},
			&cli.DurationFlag{Name: "timeout", Usage: "end each job after `TIME`", Value: plan.DefaultTimeout},
			&cli.StringFlag{Name: "build-flags", Usage: "further `FLAGS` of 'build' in the build jobs, as a shell reads them"},
			&cli.StringFlag{Name: "test-flags", Usage: "further `FLAGS` of 'test' in the test jobs, as a shell reads them"},
			&cli.StringFlag{Name: "build-script", Usage: "let the build jobs run the shell command `LINE` instead"},
			&cli.StringFlag{Name: "test-script", Usage: "let the test jobs run the shell command `LINE` instead"},
			&cli.StringSliceFlag{Name: "artifact", Usage: "let the jobs also keep `PATH` as an artifact; may be repeated"},
			&cli.StringSliceFlag{Name: "idle-tag", Usage: "`TAG` of the runner that says that there is nothing to build (else any runner)"},
		),
		run: runGenerate,
	}
}

type generateResult struct {
	Jobs     []plan.StageJob `json:"jobs"`
	Dropped  []plan.Dropped  `json:"dropped"`
	Out      string          `json:"out,omitempty"`
	Pipeline string          `json:"pipeline,omitempty"` // without a file
}

func runGenerate(ctx context.Context, in *invocation) (result, error) {
	collectLater(in.getenv)
	out := in.String("out")
	if out != "" {
		if err := atomicfile.Check(out); err != nil {
			return nil, fault.Wrap(fault.Usage, err, "write the pipeline")
		}
	}
	made, err := in.wantedPlan(ctx)
	if err != nil {
		return nil, err
	}
	o, err := in.gitlabOptions()
	if err != nil {
		return nil, err
	}
	text, err := made.GitLab(o)
	if err != nil {
		return nil, err
	}
	r := generateResult{Jobs: made.StageJobs(), Dropped: made.Dropped, Out: out}
	if out == "" {
		r.Pipeline = string(text)
		return r, nil
	}
	if err := atomicfile.WriteBytes(out, 0o644, text); err != nil {
		return nil, fault.Wrap(fault.Failure, err, "write the pipeline")
	}
	return r, nil
}

func (in *invocation) gitlabOptions() (plan.GitLabOptions, error) {
	o := plan.GitLabOptions{
		Tag: in.String("tag"), ParentJob: in.String("parent-job"), Timeout: in.Duration("timeout"), IdleTags: in.StringSlice("idle-tag"),
		BuildFlags: in.String("build-flags"), TestFlags: in.String("test-flags"), Artifacts: in.StringSlice("artifact"),
		BuildScript: in.String("build-script"), TestScript: in.String("test-script"),
		Restricted: func(j plan.Job) bool { return in.site.Uenv(j.Name).Restricted },
	}
	repository, err := in.repository()
	if err != nil {
		return o, err
	}
	root, ok, err := in.inCheckout(repository)
	if err != nil {
		return o, err
	}
	if !ok {
		err := fault.New(fault.Usage, "the recipes of the plan are in %s, not in the checkout that jobs begin in", repository)
		return o, fault.WithHint(err, "run it at the top of the checkout")
	}
	o.Root = root
	if o.Program, err = in.programOfJobs(); err != nil {
		return o, err
	}
	o.Cluster, err = in.clusterOfJobs()
	return o, err
}

// programOfJobs is the program with the global flags that hold for its jobs too.
func (in *invocation) programOfJobs() ([]string, error) {
	words := []string{in.String("program")}
	for _, name := range []string{"site", "ca-file"} {
		if path := in.String(name); path != "" {
			path, _, err := in.inCheckout(path)
			if err != nil {
				return nil, err
			}
			words = append(words, "--"+name, path)
		}
	}
	if address := in.String("registry"); address != "" {
		if err := registry.CheckAddress(address); err != nil {
			return nil, err
		}
		words = append(words, "--registry", address)
	}
	if in.Bool("plain-http") {
		words = append(words, "--plain-http")
	}
	return words, nil
}

// namedClusters finds the cluster configuration of a job where flags say where they are;
// nil if none do.
func (in *invocation) namedClusters() (func(plan.Job) string, error) {
	if in.String("clusters") == "" && in.String("clusters-v1") == "" {
		return nil, nil
	}
	s, err := in.siteWithClusters()
	if err != nil {
		return nil, err
	}
	find, err := clustersOf(s)
	return func(j plan.Job) string { return find(j.System, j.RecipeVersion) }, err
}

// clusterOfJobs is namedClusters with the directories as jobs name them.
func (in *invocation) clusterOfJobs() (func(plan.Job) string, error) {
	find, err := in.namedClusters()
	if find == nil || err != nil {
		return nil, err
	}
	return func(j plan.Job) string {
		dir := find(j)
		if inside, _, err := in.inCheckout(dir); dir != "" && err == nil {
			return inside
		}
		return dir
	}, nil
}

func (r generateResult) text(p *printer) {
	if r.Out == "" {
		p.printf("%s", strings.TrimSuffix(r.Pipeline, "\n"))
		return
	}
	p.printf("%s  %s", r.Out, plural(len(r.Jobs), "job"))
}
