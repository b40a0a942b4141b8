package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pipeline"
)

func diffCommand() *command {
	return &command{
		name: "diff", group: "Users", forUsers: true, usage: "show what changed between two images",
		args: "A B", minArgs: 2, maxArgs: 2,
		details: `Compares packages with their versions, variants and compilers, views and sizes. A and B
are labels or files; a label with a namespace is looked up in the registry, one without
in the local repositories first. Only the lists of packages are downloaded.`,
		examples: `uenv-ci diff prgenv-gnu/24.11:v1 prgenv-gnu/25.6:v1
uenv-ci diff deploy::prgenv-gnu/25.6:v1 build::prgenv-gnu/25.6:2078663062
uenv-ci diff deploy::prgenv-gnu/25.6:v1 ./store.squashfs --format json`,
		flags: []cli.Flag{&cli.BoolFlag{Name: "full", Usage: "show the environment variables of changed views in full"}},
		run:   runDiff,
	}
}

type diffResult struct {
	pipeline.Diff
	full bool
}

func runDiff(ctx context.Context, in *invocation) (result, error) {
	var sides [2]pipeline.Side
	for i := range sides {
		var err error
		if sides[i], err = in.side(ctx, i); err != nil {
			return nil, fmt.Errorf("diff: %w", err)
		}
	}
	d, err := pipeline.Compare(sides[0], sides[1])
	if err != nil {
		return nil, err
	}
	return diffResult{d, in.Bool("full")}, nil
}

// side reads the image that argument i names.
func (in *invocation) side(ctx context.Context, i int) (pipeline.Side, error) {
	if isPath(in.arg(i)) {
		return pipeline.FileSide(in.arg(i))
	}
	l, err := in.hereLabel(i, "")
	if err != nil {
		return pipeline.Side{}, err
	}
	if l.Namespace == "" {
		all, err := in.openLocals(ctx)
		if err == nil {
			defer all.Close()
			if local, records, err := all.lookup(ctx, l); err == nil {
				side, err := pipeline.LocalSide(local, records[0])
				if fault.KindOf(err) != fault.NotFound { // else only its metadata is here
					return side, err
				}
			} else if fault.KindOf(err) == fault.Usage {
				return pipeline.Side{}, err
			}
		}
	}
	found, err := in.located(ctx, l.WithNamespace(in.deploy()))
	if err != nil {
		return pipeline.Side{}, err
	}
	return pipeline.RegistrySide(ctx, found)
}

func (r diffResult) text(p *printer) {
	p.printf("%s → %s", p.bold(r.From.Name), p.bold(r.To.Name))
	if r.None() {
		p.printf("nothing that can be compared differs")
	}
	p.printf("  size       %s → %s (%s)", event.FormatBytes(r.Size[0]), event.FormatBytes(r.Size[1]), signedSize(r.Size[1]-r.Size[0]))
	for _, v := range r.Other {
		p.printf("  %-10s %s → %s", v.Name, orNone(v.From), orNone(v.To))
	}
	if r.Unknown {
		p.printf("  %s", p.yellow("one of the images does not list its packages"))
	} else {
		r.packages(p)
	}
	for _, v := range r.Views {
		p.printf("  view %s: %s", v.Name, v.State)
		r.variables(p, v)
	}
}

func (r diffResult) packages(p *printer) {
	if from, to := strings.Join(r.Compiler[0], " "), strings.Join(r.Compiler[1], " "); from != to {
		p.printf("  %-10s %s → %s", "compilers", orNone(from), orNone(to))
	}
	p.printf("  packages   %d the same, %d rebuilt, %d changed, %d added, %d removed", r.Same, r.Rebuilt, len(r.Changed), len(r.Added), len(r.Removed))
	if r.Partial {
		p.printf("  %s", p.dim("only names and versions are known"))
	}
	var rows [][]string
	for _, c := range r.Changed {
		rows = append(rows, []string{"  " + p.yellow("~"), c.From.Name, strings.Join(c.What, ", ")})
	}
	for _, a := range r.Added {
		rows = append(rows, []string{"  " + p.green("+"), a.Name, packageText(a)})
	}
	for _, a := range r.Removed {
		rows = append(rows, []string{"  " + p.red("-"), a.Name, packageText(a)})
	}
	p.rows(rows, nil)
}

// packageText is a package without its name.
func packageText(a catalog.Package) string { return strings.TrimPrefix(a.String(), a.Name+"@") }

// mostVariables is how many variables of a view are shown.
const mostVariables = 5

func (r diffResult) variables(p *printer, v catalog.ViewChange) {
	shown := v.Env
	if !r.full {
		shown = shown[:min(len(shown), mostVariables)]
	}
	for _, e := range shown {
		p.printf("    %s: %s → %s", e.Name, orNone(e.From), orNone(e.To))
	}
	if more := len(v.Env) - len(shown); more > 0 {
		p.printf("    %s", p.dim(fmt.Sprintf("and %d more: --full", more)))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func signedSize(n int64) string {
	if n < 0 {
		return "-" + event.FormatBytes(-n)
	}
	return "+" + event.FormatBytes(n)
}
