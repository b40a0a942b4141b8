package cli

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pipeline"
)

func configureCommand() *command {
	flags := append(recipeFlags(),
		&cli.StringFlag{Name: "system", Aliases: []string{"s"}, Usage: "the cluster's `NAME`; its configuration is looked up in the site's directory of clusters"},
		&cli.StringFlag{Name: "uarch", Usage: "build the tree for microarchitecture `A`"},
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write the tree into the directory `DIR`, which must be new, empty or from an earlier run"},
		&cli.BoolFlag{Name: "offline", Usage: "clone nothing"},
	)
	return &command{
		name: "configure", group: "Recipes", usage: "write the Spack build tree of a recipe for a cluster",
		args: "--recipe DIR (--system S | --cluster DIR) --uarch A --out DIR",
		details: `The tree is what stackinator 5, 6 and 7 write for their recipes, without the makefiles:
Spack's configuration, one spack.yaml per environment (a single one from recipe version 3
on) and the metadata of the image. Spack and the package repositories are cloned into it.
Beside the image's store, provenance.json says what the tree was made from. 'build' does
all of this by itself: the tree is for inspection, and for other engines.`,
		examples: `uenv-ci configure --recipe recipes/prgenv-gnu/25.11/gh200 --system daint --uarch gh200 --out build
# look at what Spack would be told, without network
uenv-ci configure --recipe recipes/cp2k/2025.1/mc --cluster ../cluster-config/eiger --uarch zen2 --out build --offline`,
		flags: flags,
		run:   runConfigure,
	}
}

func runConfigure(ctx context.Context, in *invocation) (result, error) {
	collectLater(in.getenv)
	system, uarch := in.String("system"), in.String("uarch")
	for flag, value := range map[string]string{"--system": system, "--uarch": uarch} {
		if value != "" && !label.Valid(value) {
			return nil, usageError([]string{"configure"}, "%s %q is not a name", flag, value)
		}
	}
	if in.String("out") == "" {
		return nil, usageError([]string{"configure"}, "--out is missing")
	}
	build, err := in.buildOptions(ctx, system, uarch)
	if err != nil {
		return nil, err
	}
	if system == "" {
		build.ClusterFor = nil
	}
	build.Events = in.events
	done, err := pipeline.Configure(ctx, pipeline.ConfigureOptions{Build: build, Out: in.String("out"), Versions: buildVersions(), Now: time.Now()})
	if err != nil {
		return nil, err
	}
	return configureResult(done), nil
}

type configureResult pipeline.Configured

func (r configureResult) text(p *printer) {
	target := r.System
	if r.UArch != "" {
		target += "%" + r.UArch
	}
	p.printf("%s for %s: %d files in %s, to be mounted at %s", p.bold(r.Name), target, r.Files, r.Dir, r.Mount)
	var rows [][]string
	for _, c := range r.Clones {
		state := p.dim("not cloned")
		if c.Commit != "" {
			state = shortCommit(c.Commit)
		}
		ref := c.Ref
		if ref == "" {
			ref = p.dim("(default branch)")
		}
		rows = append(rows, []string{"  " + c.Dir, c.Repo, ref, state})
	}
	p.rows(rows, nil)
}
