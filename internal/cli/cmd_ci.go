package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/site"
)

func ciCommand() *command {
	return &command{
		name: "ci", group: "CI", creates: true, usage: "plan and run the jobs of a pipeline",
		sub: []*command{ciPlanCommand(), ciGenerateCommand(), ciRunCommand()},
	}
}

// planFlags say what is planned.
func planFlags() []cli.Flag {
	return slices.Concat(clusterFlags(), []cli.Flag{
		&cli.StringFlag{Name: "matrix", Usage: "the matrix `FILE` of the pipeline (else that of the site file, else config.yaml here)"},
		&cli.StringFlag{Name: "uenv", Usage: "plan only the uenv `N[/V]`, a name or a name and version"},
		&cli.StringFlag{Name: "system", Aliases: []string{"s"}, Usage: "plan only for the cluster `S`"},
		&cli.StringFlag{Name: "uarch", Usage: "plan only for the microarchitecture `A`"},
		&cli.BoolFlag{Name: "all", Usage: "plan everything that is deployed; the default without a selection"},
		&cli.BoolFlag{Name: "undeployed", Usage: "also plan what is built but deployed nowhere"},
		&cli.StringFlag{Name: "since", Usage: "plan only images that have changed since the git revision `REV`"},
		&cli.BoolFlag{Name: "offline", Usage: "do not resolve branches (their jobs have no key), and do not ask the site file's registry"},
		&cli.StringSliceFlag{Name: "env", Usage: "the build will see the variable `NAME` (variables with the prefix UENV_CIBUILDV_ are always visible)"},
	}, codecFlags())
}

func ciPlanCommand() *command {
	return &command{
		name: "plan", usage: "show which images need building, and why",
		details: `Every job comes with the key of its image: a hash of everything that determines it,
with branches resolved to commits. Jobs whose image the registry already has, by this
key, are left out; the registry is that of --registry, UENV_CI_REGISTRY or the site
file, of which --offline ignores the last. Only targets that the matrix deploys are
planned, unless one is named in full by --uenv N/V, --system and --uarch.`,
		examples: `uenv-ci ci plan --all
# what a change needs
uenv-ci ci plan --since origin/main --format json
uenv-ci ci plan --uenv prgenv-gnu/25.11 --system daint --uarch gh200`,
		flags: planFlags(),
		run:   runPlan,
	}
}

func runPlan(ctx context.Context, in *invocation) (result, error) {
	collectLater(in.getenv)
	made, err := in.makePlan(ctx)
	if made.Format == 0 {
		return nil, err
	}
	return planResult(made), err
}

// makePlan makes the plan that the flags ask for. With the error that not all of it can
// be planned comes the rest; otherwise it has no format.
func (in *invocation) makePlan(ctx context.Context) (plan.Plan, error) {
	o, err := in.planOptions()
	if err != nil {
		return plan.Plan{}, err
	}
	made, err := pipeline.Plan(ctx, o)
	if err != nil {
		return plan.Plan{}, err
	}
	o.Events.Info("plan", "%s, %d left out", plural(len(made.Jobs), "job"), len(made.Dropped))
	return made, isComplete(made)
}

// isComplete returns why a plan is not all of what was asked for.
func isComplete(p plan.Plan) error {
	if err := p.Problems.Err(); err != nil {
		return fmt.Errorf("what is selected cannot all be planned:\n%w", err)
	}
	return nil
}

func (in *invocation) planOptions() (pipeline.PlanOptions, error) {
	o := pipeline.PlanOptions{Since: in.String("since"), Offline: in.Bool("offline"), Events: in.events}
	var err error
	if o.Select, err = in.selection(); err != nil {
		return o, err
	}
	s, err := in.siteWithClusters()
	if err != nil {
		return o, err
	}
	if o.ClusterFor, err = clustersOf(s); err != nil {
		return o, err
	}
	if o.Matrix, err = in.matrixFile(s.Matrix); err != nil {
		return o, err
	}
	o.Namespace = in.build()
	o.Registry = in.planRegistry()
	o.Variables = in.buildVariables()
	if o.Pack.Codec, err = in.codec(); err != nil {
		return o, err
	}
	o.Pack.Level, o.Pack.BlockSize = in.Int("level"), in.Int("block-size")
	o.Build = in.planBuild()
	return o, nil
}

// planBuild is what the flags say of builds, apart from the defaults.
func (in *invocation) planBuild() plan.Build {
	b := plan.Build{Level: in.Int("level"), Env: commaList(in.StringSlice("env"))}
	if in.IsSet("codec") {
		b.Codec = in.String("codec")
	}
	if in.IsSet("block-size") {
		b.BlockSize = in.Int("block-size")
	}
	return b
}

// planRegistry returns what opens the registry that may have images already: the one
// that is named, or the usual one unless all has to be done offline. Nil is none.
func (in *invocation) planRegistry() func(label.Label) (*registry.Registry, error) {
	usual := in.site.Registry.Given() || in.client.Registry != ""
	if in.String("registry") == "" && (!usual || in.Bool("offline")) {
		in.events.Info("plan", "no registry is asked which images exist already")
		return nil
	}
	shared := sync.OnceValues(in.openRegistry)
	return func(l label.Label) (*registry.Registry, error) {
		if in.site.Uenv(l.Name).Token.Given() {
			return in.registryFor(l)
		}
		return shared()
	}
}

func (in *invocation) selection() (plan.Selection, error) {
	s := plan.Selection{System: in.String("system"), UArch: in.String("uarch")}
	if uenv := in.String("uenv"); uenv != "" {
		// A colon, as the field's pipelines have it, will do too.
		name, version, hasVersion := strings.Cut(strings.Replace(uenv, ":", "/", 1), "/")
		if !label.Valid(name) || hasVersion && !label.Valid(version) {
			return s, in.ciUsage("--uenv must be a name or name/version, not %q", uenv)
		}
		s.Uenv, s.Version = name, version
	}
	if in.Bool("all") && (s != plan.Selection{}) {
		return s, in.ciUsage("--all with a selection")
	}
	inFull := s.Version != "" && s.System != "" && s.UArch != ""
	s.Deployed = !inFull && !in.Bool("undeployed")
	return s, nil
}

// matrixFile is the matrix that is named, that of the site, or the one here.
func (in *invocation) matrixFile(ofSite site.Value) (string, error) {
	if path, err := ofSite.Or(in.String("matrix")); path != "" || err != nil {
		return path, err
	}
	if _, err := os.Stat("config.yaml"); err == nil {
		return "config.yaml", nil
	}
	err := in.ciUsage("no matrix is named, and there is no config.yaml here")
	return "", fault.WithHint(err, "use --matrix FILE, or 'matrix:' in the site file")
}

// buildVariables are those of our environment that builds see.
func (in *invocation) buildVariables() map[string]string {
	return in.variables(commaList(in.StringSlice("env")))
}

// variables are those that a build sees which is told the names of some.
func (in *invocation) variables(named []string) map[string]string {
	variables := map[string]string{}
	for _, v := range in.environ {
		name, value, _ := strings.Cut(v, "=")
		rest, marked := strings.CutPrefix(name, "UENV_CIBUILDV_")
		switch {
		case marked && rest != "":
			variables[rest] = value
		case slices.Contains(named, name):
			variables[name] = value
		}
	}
	return variables
}

type planResult plan.Plan

func (r planResult) text(p *printer) {
	if len(r.Jobs) > 0 {
		var rows [][]string
		for _, j := range r.Jobs {
			key := p.dim("unresolved")
			if j.Key != "" {
				key = j.Key[:12]
			}
			rows = append(rows, []string{j.ID, j.Recipe, cmp.Or(j.Runner.Kind, j.Runner.SlurmTag, j.Runner.BaremetalTag), key, strings.Join(j.Reasons, "; ")})
		}
		p.table([]string{"JOB", "RECIPE", "RUNNER", "KEY", "WHY"}, rows)
	}
	if len(r.Dropped) > 0 {
		if len(r.Jobs) > 0 {
			p.printf("")
		}
		var rows [][]string
		for _, d := range r.Dropped {
			rows = append(rows, []string{d.ID, d.Reason})
		}
		p.table([]string{"LEFT OUT", "WHY"}, rows)
	}
}
