package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/scratch"
)

func demoCommand() *command {
	return &command{
		name: "demo", siteless: true, group: "Help", creates: true, writes: true, usage: "take an example from recipe to user, without server, root or network",
		details: `Builds an example recipe in memory, packs it, publishes it to a directory of OCI
layouts, tests, promotes and pulls it, then runs, finds and inspects it. Everything is
removed afterwards unless --keep is given.`,
		examples: `uenv-ci demo
# leave everything, and print the commands that repeat each stage
uenv-ci demo --keep /tmp/uenv-demo
# with a real Spack
uenv-ci demo --spack ~/spack`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "keep", Usage: "keep everything in `DIR`, which must be empty or not exist"},
			&cli.StringFlag{Name: "spack", Usage: "build a Spack recipe with the Spack 0.23 checkout `DIR`", EnvVars: []string{"UENV_CI_SPACK"}},
			&cli.StringFlag{Name: "cluster", Usage: "the cluster configuration's directory `DIR` for --spack (else an example for Debian 12)"},
			&cli.StringFlag{Name: "build-root", Usage: "build below `DIR` (else in memory, /dev/shm)"},
		},
		run: runDemo,
	}
}

func runDemo(ctx context.Context, in *invocation) (_ result, err error) {
	dir, remove, err := in.demoDir(in.String("keep"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	o := pipeline.DemoOptions{
		Dir: dir, Spack: in.String("spack"), Cluster: in.String("cluster"), System: "demo", UArch: runtime.GOARCH,
		BuildRoot: in.String("build-root"), Environ: in.environ, Events: in.onlyWarnings(),
	}
	if in.format == "text" {
		in.out.printf("%s", in.out.bold("uenv-ci demo: from recipe to user, in "+dir))
		o.OnStage = in.showStage
	}
	report, err := pipeline.Demo(ctx, o)
	return demoResult{report, in.String("keep") != "", o}, err
}

func (in *invocation) demoDir(keep string) (string, func() error, error) {
	if keep == "" {
		work, err := scratch.New("", in.onlyWarnings())
		if err != nil {
			return "", nil, err
		}
		return work.Path(), work.Remove, nil
	}
	dir, err := filepath.Abs(keep)
	if err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return "", nil, fault.New(fault.Usage, "--keep %s: the directory is not empty", keep)
	case err != nil:
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", nil, fault.Wrap(fault.Failure, err, "make %s", keep)
		}
	}
	return dir, func() error { return nil }, nil
}

func (in *invocation) showStage(s pipeline.Stage) {
	in.out.printf("%s %-8s %7s  %s", in.out.mark(s.OK), s.Name, formatSeconds(s.Seconds), s.Detail)
	in.out.flush()
}

type demoResult struct {
	pipeline.DemoReport
	kept    bool
	options pipeline.DemoOptions
}

func (r demoResult) text(p *printer) {
	p.printf("")
	var rows [][]string
	var total float64
	for _, s := range r.Stages {
		size := ""
		if s.Size > 0 {
			size = event.FormatBytes(s.Size)
		}
		rows = append(rows, []string{s.Name, formatSeconds(s.Seconds), size, shortDigest(s.Digest)})
		total += s.Seconds
	}
	rows = append(rows, []string{"total", formatSeconds(total), "", ""})
	p.table([]string{"stage", "time", "size", "digest"}, rows, 1, 2)
	p.printf("")
	for _, note := range r.Notes {
		p.printf("%s", p.dim(note))
	}
	if r.kept {
		r.commands(p)
	}
}

// commands prints how to repeat each stage by hand.
func (r demoResult) commands(p *printer) {
	p.printf("")
	p.printf("%s", p.bold("Everything is in "+r.options.Dir+". The stages by hand:"))
	for _, line := range r.Commands {
		p.printf("  %s", line)
	}
}
