package cli

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/proc"
)

func reproduceCommand() *command {
	return &command{
		name: "reproduce", group: "Recipes", usage: "repeat a build from its report",
		args: "REPORT", minArgs: 1, maxArgs: 1,
		details: `Uses the same recipe and cluster files, the same commit of Spack, the same sandbox and
mount point as the build of the report, even if that failed. Files that have changed or
disappeared are checked out from git; if git does not have them, that is an error. The
exit code is 0 if the image is the same, and that of 'build' if it fails again.

--shell opens a shell in the sandbox, with the environment of the build: where it
fails, at its end, or before the stage named by --before.`,
		examples: `uenv-ci reproduce build-report.json
# look around where it failed
uenv-ci reproduce build-report.json --shell
# stop before that, and try by hand
uenv-ci reproduce build-report.json --shell --before 'install hello'
echo 'spack find' | uenv-ci reproduce build-report.json --shell
# the same with a corrected recipe
uenv-ci reproduce build-report.json --recipe recipes/hello/1.0`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "shell", Usage: "open a shell in the build"},
			&cli.StringFlag{Name: "before", Usage: "with --shell: open it before the stage `NAME` of the report"},
			&cli.StringFlag{Name: "recipe", Aliases: []string{"r"}, Usage: "take the recipe in `DIR` instead of that of the report"},
			&cli.StringFlag{Name: "cluster", Usage: "take the cluster configuration in `DIR` instead of that of the report"},
			&cli.StringFlag{Name: "mirrors", Usage: "take build caches and mirrors from `FILE` instead of that of the report"},
			&cli.StringFlag{Name: "spack", Usage: "take the Spack checkout `DIR` instead of that of the report"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "keep the image in `FILE`"},
			&cli.StringFlag{Name: "build-root", Usage: "build in a private directory below `DIR` (else in memory, /dev/shm)"},
			&cli.BoolFlag{Name: "no-sandbox", Usage: "allow a build that had no sandbox to run on the bare machine again"},
			&cli.BoolFlag{Name: "offline", Usage: "use no network at all"},
			&cli.BoolFlag{Name: "trusted", Usage: "give hooks the secrets that the site file has for them, if the build had them"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "run `N` compilations at once (else as many as the build)"},
			&cli.StringFlag{Name: "logs", Usage: "keep the logs of the build in `DIR`"},
		},
		run: runReproduce,
	}
}

type reproduceResult pipeline.Reproduced

func (r reproduceResult) text(p *printer) {
	p.printf("%s  %s", r.Label, event.FormatBytes(r.Image.Size))
	switch {
	case r.Same:
		p.printf("the same image  %s", r.Image.Digest)
	case r.Expected == "":
		p.printf("it failed then, and is built now  %s", r.Image.Digest)
	default:
		p.printf("another image   %s", r.Image.Digest)
		p.printf("the report has  %s", r.Expected)
		for _, reason := range r.Because {
			p.printf("%s", reason)
		}
	}
}

func runReproduce(ctx context.Context, in *invocation) (result, error) {
	o, err := in.reproduceOptions()
	if err != nil {
		return nil, err
	}
	done, err := pipeline.Reproduce(ctx, o)
	if exit, ok := errors.AsType[*proc.ExitError](err); ok && o.Shell != nil {
		return nil, exitStatus(exit.Code)
	}
	if err != nil || o.Shell != nil {
		return nil, err
	}
	if !done.Same && done.Expected != "" {
		return reproduceResult(done), exitStatus(1)
	}
	return reproduceResult(done), nil
}

func (in *invocation) reproduceOptions() (pipeline.ReproduceOptions, error) {
	o := pipeline.ReproduceOptions{Out: in.String("out"), Versions: buildVersions()}
	if in.String("before") != "" && !in.Bool("shell") {
		return o, usageError([]string{"reproduce"}, "--before is for --shell")
	}
	var err error
	if o.Report, err = pipeline.ReadBuildReport(in.arg(0)); err != nil {
		return o, err
	}
	for _, name := range []string{"recipe", "cluster"} {
		if dir := in.String(name); dir != "" {
			if dir, err = filepath.Abs(dir); err == nil {
				err = in.Set(name, dir)
			}
			if err != nil {
				return o, err
			}
		}
	}
	about, use := in.site.Uenv(o.Report.Label.Name), settings{in: in}
	o.Build = pipeline.BuildOptions{
		Recipe: in.String("recipe"), Cluster: in.String("cluster"), Mirrors: in.String("mirrors"),
		Options: build.Options{
			CAFile: in.String("ca-file"), Spack: in.String("spack"), Root: use.or("build-root", in.site.Build.Root),
			NoSandbox: in.Bool("no-sandbox"), Offline: in.Bool("offline"), Jobs: in.Int("jobs"), LogDir: in.String("logs"),
			Hide:      nonEmpty(in.String("token"), in.String("registry-config")),
			Protected: in.Bool("trusted"), Restricted: about.Restricted, Hooks: build.Hooks{Network: about.Network}, Events: in.events,
		},
	}
	if in.Bool("trusted") {
		o.Build.Hooks.Secrets = about.HookSecrets
	}
	o.Variables = in.variables(o.Report.Inputs.Env)
	if in.Bool("shell") {
		o.Shell = &build.Shell{
			Before: in.String("before"), Terminal: isTerminal(in.stdin) && isTerminal(in.stdout),
			Stdin: in.stdin, Stdout: in.stdout, Stderr: in.stderr,
		}
	}
	return o, use.err
}
