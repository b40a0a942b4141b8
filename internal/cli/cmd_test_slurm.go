package cli

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/scratch"
	"uenv-ci.dev/internal/slurm"
)

// The executors of tests.
const (
	executorLocal = "local"
	executorSlurm = "slurm"
)

// testScratch makes a directory for the image and the results, on the file system of the
// compute nodes if the tests run there; o.Slurm then says so.
func (in *invocation) testScratch(o *pipeline.TestOptions) (*scratch.Dir, error) {
	executor := in.String("executor")
	if executor == "" {
		executor = in.site.Tests.Executor
	}
	switch executor {
	case "", executorLocal:
		for _, flag := range []string{"slurm", "shared"} {
			if in.IsSet(flag) {
				return nil, usageError([]string{"test"}, "--%s is for --executor slurm", flag)
			}
		}
		return scratch.New("", in.events)
	case executorSlurm:
	default:
		return nil, usageError([]string{"test"}, "--executor must be local or slurm, not %q", executor)
	}
	use := settings{in: in}
	shared := use.or("shared", in.site.Tests.Shared)
	if use.err != nil {
		return nil, use.err
	}
	shared, err := filepath.Abs(shared) // "" is the working directory
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(shared); err != nil || !info.IsDir() {
		err := fault.New(fault.Usage, "the shared directory %s does not exist", shared)
		return nil, fault.WithHint(err, "--shared names a directory that the compute nodes have too")
	}
	work, err := scratch.NewShared(shared, in.events)
	if err != nil {
		return nil, err
	}
	root, err := scratch.SharedRoot(shared)
	if err != nil {
		return nil, errors.Join(err, work.Remove())
	}
	o.Slurm = &pipeline.InSlurm{Client: slurm.Client{Environ: in.environ}, Root: root}
	o.Run.Hide = append(o.Run.Hide, filepath.Dir(root))
	return work, nil
}

// prepareJob completes how a job is submitted, and looks whether it can be.
func (in *invocation) prepareJob(ctx context.Context, o *pipeline.TestOptions, work string) error {
	if o.Slurm == nil {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Slurm.Program, o.Slurm.KindOf = self, kindOfExit
	o.Slurm.Dir = filepath.Join(work, "job")
	if err := os.Mkdir(o.Slurm.Dir, 0o700); err != nil {
		return err
	}
	return o.Slurm.Ready(ctx, in.events)
}

// jobSettings finds the settings of the job, when it is known what is tested, and the
// command line that it runs.
func (in *invocation) jobSettings(o *pipeline.TestOptions) error {
	if o.Slurm == nil {
		return nil
	}
	given, err := slurm.Parse(in.StringSlice("slurm"))
	if err != nil {
		return err
	}
	if partition := in.String("partition"); partition != "" {
		given = given.Over(slurm.Settings{"partition": partition})
	}
	variables := slurm.FromVariables(in.getenv)
	if meant, ok := variables.Suspicious(); ok && given["time"] == "" {
		in.events.Warn("test", "Slurm takes the time limit %s for minutes; if %s is meant, quote it in YAML: \"hours:minutes:seconds\"", variables["time"], meant)
	}
	matrix, err := in.site.Matrix.Get()
	if err != nil {
		return err
	}
	below, err := pipeline.JobSettings(matrix, o.Run.System, o.Run.UArch)
	if err != nil {
		in.events.Warn("test", "the matrix says nothing about the job: %v", err)
	}
	o.Slurm.Settings = given.Over(variables).Over(below)
	base, err := in.jobArgs(*o)
	o.Slurm.Args = func(p pipeline.JobPlaces) []string {
		args := []string{"--log-json", "--format", "json", "--site", p.Site}
		args = append(append(args, base...), "--out", p.Results, p.Image)
		if p.Timeout > 0 {
			args = append(args, "--timeout", p.Timeout.String())
		}
		return args
	}
	return err
}

// jobArgs is the command line of the job: the tests of a file, with nothing left to be
// found in a site file, and no credential.
func (in *invocation) jobArgs(o pipeline.TestOptions) ([]string, error) {
	args := []string{"test", "--executor", executorLocal, "--no-attach"}
	run := o.Run
	suite, err := absolute(run.Suite.Dir)
	if err != nil {
		return nil, err
	}
	program := run.ReFrame
	if strings.Contains(program, "/") {
		if program, err = absolute(program); err != nil {
			return nil, err
		}
	}
	values := map[string]string{
		"system": run.System, "uarch": run.UArch, "partition": run.Partition, "runner": string(run.Runner), "suite": suite,
		"reframe-config": run.Suite.Config, "mode": run.Suite.Mode, "reframe": program, "mount": run.MountPoint,
	}
	for _, flag := range slices.Sorted(maps.Keys(values)) {
		if values[flag] != "" {
			args = append(args, "--"+flag+"="+values[flag])
		}
	}
	for _, method := range o.Methods {
		args = append(args, "--method="+string(method))
	}
	for flag, on := range map[string]bool{"--no-sandbox": run.NoSandbox, "--network": run.Network} {
		if on {
			args = append(args, flag)
		}
	}
	for _, path := range run.Hide {
		args = append(args, "--hide="+path)
	}
	return args, nil
}

// absolute is filepath.Abs, of "" "".
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// kindOfExit is the kind of error that one of our exit codes stands for.
func kindOfExit(code int) fault.Kind {
	for kind, c := range exitCodes {
		if c == code {
			return kind
		}
	}
	return fault.Failure
}
