package cli

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/lifecycle"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
)

func deprecateCommand() *command {
	return &command{
		name: "deprecate", group: "Staff", writes: true, usage: "tell users to stop using an image",
		args: "LABEL --reason TEXT", minArgs: 1, maxArgs: 1,
		details: `'find', 'inspect' and 'pull' show the deprecation. The image stays; 'undeprecate'
withdraws it. The default namespace is 'deploy'.`,
		examples: `uenv-ci deprecate prgenv-gnu/24.7:v1@daint%gh200 --reason "MPI hangs above 64 nodes" \
  --replaced-by prgenv-gnu/25.11:v1@daint%gh200 --until 2027-01-31`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "the reason, a `TEXT` for the record"},
			&cli.StringFlag{Name: "replaced-by", Usage: "the `LABEL` to use instead"},
			&cli.StringFlag{Name: "until", Usage: "the last day of support, a `DATE` such as 2027-01-31"},
			whoFlag(),
		},
		run: runDeprecate,
	}
}

func undeprecateCommand() *command {
	return &command{
		name: "undeprecate", group: "Staff", writes: true, usage: "withdraw a deprecation",
		args: "LABEL --reason TEXT", minArgs: 1, maxArgs: 1,
		details: `The record of the deprecation stays; a record of its withdrawal is added.
The default namespace is 'deploy'.`,
		examples: `uenv-ci undeprecate prgenv-gnu/24.7:v1@daint%gh200 --reason "it was the driver"`,
		flags:    []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "the reason, a `TEXT` for the record"}, whoFlag()},
		run:      runUndeprecate,
	}
}

func whoFlag() cli.Flag {
	return &cli.StringFlag{Name: "who", Usage: "the `NAME` to record (else the user's)", EnvVars: []string{"GITLAB_USER_LOGIN", "USER"}}
}

type deprecateResult struct {
	Label string `json:"label"`
	meta.Deprecation
}

func (r deprecateResult) text(p *printer) {
	if r.State == meta.Withdrawn {
		p.printf("%s is not deprecated any more", r.Label)
		return
	}
	p.printf("%s is deprecated: %s", r.Label, deprecationText(&r.Deprecation))
}

func deprecationText(d *meta.Deprecation) string {
	text := d.Reason
	if d.Replacement != "" {
		text += "; use " + d.Replacement
	}
	if d.Until != nil {
		text += "; supported until " + d.Until.String()
	}
	return text
}

func runDeprecate(ctx context.Context, in *invocation) (result, error) {
	n, err := in.note()
	if err != nil {
		return nil, err
	}
	if other := in.String("replaced-by"); other != "" {
		l, err := label.Parse(other)
		if err != nil {
			return nil, err
		}
		n.Replacement = l.String()
	}
	if day := in.String("until"); day != "" {
		until, err := meta.ParseDate(day)
		if err != nil {
			return nil, fault.New(fault.Usage, "--until: %w", err)
		}
		n.Until = &until
	}
	found, err := in.locate(ctx, in.deploy())
	if err != nil {
		return nil, err
	}
	notes := in.indexNotes(ctx, found.Repo.Beside, found.Label)
	d, err := lifecycle.Deprecate(ctx, found.Repo, found.Descriptor, n)
	if err != nil {
		return nil, err
	}
	notes[found.Label.Namespace]()
	return deprecateResult{found.Label.String(), d}, nil
}

func runUndeprecate(ctx context.Context, in *invocation) (result, error) {
	n, err := in.note()
	if err != nil {
		return nil, err
	}
	found, err := in.locate(ctx, in.deploy())
	if err != nil {
		return nil, err
	}
	notes := in.indexNotes(ctx, found.Repo.Beside, found.Label)
	d, err := lifecycle.Undeprecate(ctx, found.Repo, found.Descriptor, n)
	if err != nil {
		return nil, err
	}
	notes[found.Label.Namespace]()
	return deprecateResult{found.Label.String(), d}, nil
}

func (in *invocation) note() (lifecycle.Note, error) {
	n := lifecycle.Note{Who: in.who(), Reason: in.String("reason"), When: time.Now()}
	switch {
	case n.Reason == "":
		return n, usageError([]string{in.Command.Name}, "--reason is missing")
	case n.Who == "":
		return n, usageError([]string{in.Command.Name}, "--who is missing, and the system does not know your name")
	}
	return n, nil
}

// who is the person that a record names.
func (in *invocation) who() string {
	if name := in.String("who"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid()) // in a container that knows no users
}

// locate finds the image in the registry that argument 0 names.
func (in *invocation) locate(ctx context.Context, namespace string) (pipeline.Found, error) {
	l, err := in.label(0, namespace)
	if err != nil {
		return pipeline.Found{}, err
	}
	return in.located(ctx, l)
}

// located finds the image in the registry that a label names.
func (in *invocation) located(ctx context.Context, l label.Label) (pipeline.Found, error) {
	reg, err := in.registryFor(l)
	if err != nil {
		return pipeline.Found{}, err
	}
	listing, err := in.listing()
	if err != nil {
		return pipeline.Found{}, err
	}
	return pipeline.Locate(ctx, reg, l, listing)
}
