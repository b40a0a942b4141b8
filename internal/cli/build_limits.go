package cli

import (
	"cmp"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pipeline"
)

// limitFlags say when a build gives up, and what it leaves behind.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "air-gapped", Usage: "use no network at all, not even in hooks, and list missing sources before anything is built"},
		&cli.TimestampFlag{Name: "deadline", Layout: time.RFC3339, Usage: "stop early enough to save finished work by `TIME` (else by the end of the Slurm job)"},
		&cli.DurationFlag{Name: "keep-on-failure", Usage: "keep the directory of a failed build for `TIME`, such as 2h"},
		&cli.StringFlag{Name: "like", Usage: "start only if there is as much storage and memory as the build of the report `FILE` needed (else of the report that will be replaced; 'none' starts regardless)"},
	}
}

// limit completes how a recipe is built by these flags and the site file. The report of
// the build will be written to a file.
func (in *invocation) limit(o *pipeline.BuildOptions, l label.Label, report string) error {
	about := in.site.Uenv(l.Name)
	o.AirGapped, o.Protected, o.Restricted = in.Bool("air-gapped"), !in.perChange(), about.Restricted
	o.Hooks = build.Hooks{Secrets: about.HookSecrets, Network: about.Network}
	o.Limits = build.Limits{KeepOnFailure: in.Duration("keep-on-failure")}
	if end := in.Timestamp("deadline"); end != nil {
		o.Limits.Deadline = *end
	}
	previous, err := in.previousBuild(l, report)
	if err != nil {
		return err
	}
	o.Limits.Previous = previous
	o.ArchiveDir = filepath.Dir(report)
	return nil
}

// likeNothing is the value of --like for a build whose needs are unknown.
const likeNothing = "none"

// previousBuild returns what is known of an earlier build of the same image: what
// --like names, else the report that this build will replace. It may be nil.
func (in *invocation) previousBuild(l label.Label, report string) (*build.Report, error) {
	file := in.String("like")
	if file == likeNothing {
		return nil, nil
	}
	previous, err := pipeline.ReadBuildReport(cmp.Or(file, report))
	if file != "" {
		return &previous.Report, err
	}
	was := previous.Label
	if err != nil || was.Name != l.Name || was.Version != l.Version || was.System != l.System || was.UArch != l.UArch {
		return nil, nil // nothing, or of something else
	}
	return &previous.Report, nil
}
