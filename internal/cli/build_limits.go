package cli

import (
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/pipeline"
)

// limitFlags are those that say when a build gives up and what it leaves then.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "air-gapped", Usage: "use no network at all, hooks neither"},
		&cli.TimestampFlag{Name: "deadline", Layout: time.RFC3339, Usage: "stop in time to save what there is by `TIME` (else by the end of the Slurm job)"},
		&cli.DurationFlag{Name: "keep-on-failure", Usage: "keep the directory of a build that failed for a `TIME` such as 2h"},
		&cli.StringFlag{Name: "like", Usage: "begin only if there is as much room and memory as the build of the report `FILE` needed"},
	}
}

// limit completes how a recipe is built by these flags and the site file.
func (in *invocation) limit(o *pipeline.BuildOptions, uenv string) error {
	s, err := in.site()
	if err != nil {
		return err
	}
	about := s.Uenv(uenv)
	o.AirGapped, o.Protected, o.Restricted = in.Bool("air-gapped"), !in.perChange(), about.Restricted
	o.Hooks = build.Hooks{Secrets: about.HookSecrets, Network: about.Network}
	o.Limits = build.Limits{KeepOnFailure: in.Duration("keep-on-failure")}
	if end := in.Timestamp("deadline"); end != nil {
		o.Limits.Deadline = *end
	}
	if file := in.String("like"); file != "" {
		previous, err := build.ReadReport(file)
		if err != nil {
			return err
		}
		o.Limits.Previous = &previous
	}
	o.ReportDir = filepath.Dir(in.imageFile())
	return nil
}
