package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/evidence"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/slurm"
	"uenv-ci.dev/internal/squashfs"
)

func testCommand() *command {
	return &command{
		name: "test", group: "CI", writes: true, usage: "test an image and attach the results to it",
		args: "(LABEL|FILE|DIR)", minArgs: 1, maxArgs: 1,
		details: `The image is mounted and tested as its recipe says: with ReFrame according to
extra/reframe.yaml, or with the program extra/test, which reports in TAP. The image's
own tests run in a sandbox, without network. The results are attached to the image of
a LABEL, whether good or bad. The default namespace is 'build'. DIR is the tree of an
image that is not packed yet; it is packed for the tests. Exit codes: 7 if tests failed,
9 if no test ran.

With the executor 'slurm' the tests run in a Slurm job on a compute node. Its settings are
those of --slurm, of SBATCH_* and SLURM_* variables (SLURM_PARTITION, SLURM_ACCOUNT,
SLURM_TIMELIMIT …) and of the matrix, in this order. The job's files are in a private
directory below --shared, which the nodes have to have too; no credential goes there.
If the cluster ends the job, by a failed node or for lack of memory, the exit code is 6.`,
		examples: `uenv-ci test hello/1.0:42@daint%gh200
uenv-ci test ./store.squashfs --system daint --out results
# on a compute node
uenv-ci test hello/1.0:42@daint%gh200 --executor slurm --shared $SCRATCH --slurm partition=debug --slurm time=00:30:00`,
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "system", Usage: "the cluster `NAME` on which the tests run (else the label's, or CLUSTER_NAME)"},
			&cli.StringFlag{Name: "partition", Usage: "the partition `NAME` on which they run"},
			&cli.StringFlag{Name: "runner", Usage: "use the `reframe|command` runner (else what the image has)"},
			&cli.StringFlag{Name: "suite", Usage: "directory `DIR` of the site's ReFrame checks"},
			&cli.StringFlag{Name: "reframe-config", Usage: "ReFrame's configuration `FILE`, relative to the suite"},
			&cli.StringFlag{Name: "mode", Usage: "execution `MODE` of that configuration"},
			&cli.StringFlag{Name: "reframe", Usage: "the ReFrame program `FILE`", EnvVars: []string{"UENV_CI_REFRAME"}},
			&cli.StringFlag{Name: "waivers", Usage: "read known failures from `FILE`"},
			&cli.DurationFlag{Name: "timeout", Usage: "end the tests after `TIME`, such as 30m"},
			&cli.StringFlag{Name: "out", Usage: "also keep the results in `DIR`"},
			&cli.BoolFlag{Name: "no-attach", Usage: "attach nothing"},
			&cli.BoolFlag{Name: "no-sandbox", Usage: "run the image's own tests on the bare machine"},
			&cli.BoolFlag{Name: "network", Usage: "leave the network on for the image's own tests"},
			&cli.StringSliceFlag{Name: "hide", Usage: "hide `PATH` from the image's own tests, besides what is always hidden"},
			&cli.StringFlag{Name: "uarch", Usage: "the microarchitecture `A` of a FILE"},
			&cli.StringFlag{Name: "executor", Usage: "run the tests here or in a Slurm job: `local|slurm` (else as the site file says, else local)"},
			&cli.StringSliceFlag{Name: "slurm", Usage: "a setting `NAME=VALUE` of the Slurm job, as of sbatch: " + strings.Join(slurm.Names(), ", ")},
			&cli.StringFlag{Name: "shared", Usage: "a directory `DIR` that the compute nodes have too, for the files of the Slurm job (else as in the site file, else the working directory)"},
		}, mountFlags()...),
		run: runTest,
	}
}

type testResult struct {
	pipeline.Tested
	Label string `json:"label,omitempty"`
	path  string
}

func runTest(ctx context.Context, in *invocation) (res result, err error) {
	o, err := in.testOptions()
	if err != nil {
		return nil, err
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	work, err := in.testScratch(&o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	if err := in.prepareJob(ctx, &o, work.Path()); err != nil {
		return nil, err
	}
	if err := in.testTarget(ctx, &o, work.Path()); err != nil {
		return nil, err
	}
	if err := in.jobSettings(&o); err != nil {
		return nil, err
	}
	tested, err := pipeline.Test(ctx, o)
	if tested.Verdict.State == "" {
		return nil, err
	}
	r := testResult{Tested: tested, path: in.arg(0)}
	if o.Attach != nil {
		r.Label = o.Attach.Label.String()
	}
	return r, err
}

func (in *invocation) testOptions() (pipeline.TestOptions, error) {
	methods, err := mountMethods(in.StringSlice("method"))
	if err != nil {
		return pipeline.TestOptions{}, err
	}
	use := settings{in: in}
	o := pipeline.TestOptions{Methods: methods, Server: server(), Out: in.String("out"), Events: in.events}
	o.Run = evidence.Options{
		MountPoint: in.String("mount"), System: in.String("system"), Partition: in.String("partition"),
		Runner: evidence.Runner(cmp.Or(in.String("runner"), in.site.Tests.Runner)), ReFrame: use.or("reframe", in.site.Tests.Reframe),
		Suite:   evidence.Suite{Dir: use.or("suite", in.site.Tests.Suite), Config: use.or("reframe-config", in.site.Tests.Config), Mode: in.String("mode")},
		Timeout: in.Duration("timeout"), Environ: in.environ, Now: time.Now,
		NoSandbox: in.Bool("no-sandbox"), Network: in.Bool("network"),
	}
	if use.err != nil {
		return o, use.err
	}
	if o.Run.Hide, err = in.secrets(); err != nil {
		return o, err
	}
	if o.Run.Timeout == 0 {
		o.Run.Timeout = time.Duration(in.site.Tests.TimeoutSeconds) * time.Second
	}
	o.Run.Waivers, err = in.waivers()
	return o, err
}

func (in *invocation) waivers() ([]meta.Waiver, error) {
	path := in.String("waivers")
	if path == "" {
		return nil, nil
	}
	return evidence.LoadWaivers(path)
}

// secrets returns the paths that programs of an image must not see, besides those that
// every sandbox hides.
func (in *invocation) secrets() ([]string, error) {
	var paths []string
	given := []string{in.String("token"), in.String("registry-config")}
	for _, u := range in.site.Uenvs {
		given = append(given, u.Token.Known())
	}
	for _, path := range nonEmpty(append(given, in.StringSlice("hide")...)...) {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		paths = append(paths, absolute)
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return append(paths, sandbox.CheckoutSecrets(here)...), nil
}

// testTarget finds what argument 0 names: a file, or an image in the registry,
// which is fetched below work.
func (in *invocation) testTarget(ctx context.Context, o *pipeline.TestOptions, work string) error {
	if isPath(in.arg(0)) {
		file, err := in.packed(ctx, in.arg(0), work)
		if err != nil {
			return err
		}
		target, err := pipeline.FileRunnable(file, in.events)
		if err != nil {
			return err
		}
		o.Image, o.Run.System, o.Run.UArch = target, cmp.Or(o.Run.System, in.getenv("CLUSTER_NAME")), in.String("uarch")
		if o.Run.System == "" {
			return usageError([]string{"test"}, "it is not known on which system the tests run: say so with --system")
		}
		return nil
	}
	found, err := in.locate(ctx, in.build())
	if err != nil {
		return err
	}
	if here := in.getenv("CLUSTER_NAME"); o.Run.System == "" && here != "" && here != found.Label.System {
		return fault.WithHint(
			fault.New(fault.Usage, "%s is made for %s, but this is %s", found.Label, found.Label.System, here),
			"--system says for which of them the results count")
	}
	m, err := image.Read(ctx, found.Repo, found.Descriptor)
	if err != nil {
		return err
	}
	path := filepath.Join(work, meta.ImageTitle)
	if err := image.Fetch(ctx, found.Repo, m, path, image.FetchOptions{Events: o.Events}); err != nil {
		return err
	}
	if o.Image, err = pipeline.FileRunnable(path, in.events); err != nil {
		return err
	}
	if !in.Bool("no-attach") {
		o.Attach = &found
	}
	o.Run.Restricted = in.site.Uenv(found.Label.Name).Restricted
	o.Run.System, o.Run.UArch = cmp.Or(o.Run.System, found.Label.System), found.Label.UArch
	o.Run.Image = meta.Subject{Label: found.Label.String(), Digest: found.Descriptor.Digest}
	return nil
}

// packed returns the path of an image file; one is made below work, without compression,
// of a directory.
func (in *invocation) packed(ctx context.Context, path, work string) (string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return path, nil
	}
	if _, err := os.Stat(filepath.Join(path, meta.EnvFile)); err != nil {
		err = fault.New(fault.Invalid, "%s is no tree of an image: it has no %s", path, meta.EnvFile)
		return "", fault.WithHint(err, "name the directory that is at the mount point of the image")
	}
	file := filepath.Join(work, meta.ImageTitle)
	_, err := image.Pack(ctx, path, file, image.PackOptions{Codec: squashfs.None, Created: time.Now(), Events: in.events})
	return file, err
}

func (r testResult) text(p *printer) {
	name := cmp.Or(r.Label, r.path)
	p.printf("%s  %s  %s", name, p.verdict(r.Verdict.State), r.Verdict.Reason)
	if j := r.Job; j != nil {
		p.printf("%s", p.dim(fmt.Sprintf("in Slurm job %s on %s (%s), %s", j.ID, j.Nodes, j.Partition, time.Duration(j.Elapsed*float64(time.Second)))))
	}
	for _, c := range r.Verdict.Cases {
		if c.Outcome == meta.Failed {
			p.printf("  %s %s  %s", p.red("failed"), c.Name, c.Reason)
		}
	}
	if r.Attached != "" {
		p.printf("%s", p.dim("attached as "+r.Attached.String()))
	}
}
