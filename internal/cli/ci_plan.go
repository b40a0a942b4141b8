package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/plan"
)

// madePlanFlags name a plan that is there already, or what to plan.
func madePlanFlags() []cli.Flag {
	file := &cli.StringFlag{Name: "plan", Usage: "take the plan in `FILE`, or in standard input if that is '-', which 'ci plan --format json' wrote (else one is made, as by 'ci plan')"}
	return append([]cli.Flag{file}, planFlags()...)
}

// settled are the flags of which a plan that is there already has decided.
var settled = [...]string{"all", "undeployed", "since", "env", "codec", "level", "block-size"}

// wantedPlan is the plan that --plan names, or one that is made, with all that was asked
// for. Of a plan that is there already only what is selected is kept.
func (in *invocation) wantedPlan(ctx context.Context) (plan.Plan, error) {
	if in.String("plan") == "" {
		return in.makePlan(ctx)
	}
	for _, name := range settled {
		if in.IsSet(name) {
			return plan.Plan{}, in.ciUsage("--%s says how a plan is made, and --plan has one", name)
		}
	}
	s, err := in.selection()
	if err != nil {
		return plan.Plan{}, err
	}
	p, err := in.readPlan(in.String("plan"))
	if err == nil {
		err = isComplete(p)
	}
	if err != nil {
		return plan.Plan{}, err
	}
	return p.Only(s), nil
}

func (in *invocation) readPlan(file string) (plan.Plan, error) {
	if file == "-" {
		return plan.Parse(in.stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		kind := fault.Failure
		if errors.Is(err, fs.ErrNotExist) {
			kind = fault.NotFound
		}
		return plan.Plan{}, fault.Wrap(kind, err, "read the plan")
	}
	defer f.Close()
	return plan.Parse(f)
}

// repository is the directory that the recipes of a plan are relative to: that of the
// matrix, or the working directory if there is none.
func (in *invocation) repository() (string, error) {
	matrix, err := in.matrixFile(in.site.Matrix)
	if err != nil && in.String("plan") == "" {
		return "", err
	}
	if matrix == "" {
		matrix = "config.yaml"
	}
	return filepath.Abs(filepath.Dir(matrix))
}

// inCheckout returns a path relative to the top of the checkout: that of the CI job, or
// the working directory. A path outside is returned in full.
func (in *invocation) inCheckout(path string) (inside string, ok bool, err error) {
	top := in.getenv("CI_PROJECT_DIR")
	if top == "" {
		top = "."
	}
	if top, err = resolved(top); err != nil {
		return "", false, err
	}
	if path, err = resolved(path); err != nil {
		return "", false, err
	}
	relative, err := filepath.Rel(top, path)
	if err != nil || !filepath.IsLocal(relative) {
		return path, false, nil
	}
	return filepath.ToSlash(relative), true, nil
}

// resolved is an absolute path without links, as far as it exists.
func resolved(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil
}

// ciUsage is a mistake in the command line of a subcommand of ci.
func (in *invocation) ciUsage(format string, args ...any) error {
	return usageError([]string{"ci", in.Command.Name}, format, args...)
}
