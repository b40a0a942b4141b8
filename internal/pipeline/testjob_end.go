package pipeline

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/slurm"
)

// metaEnv is where metadata lies beside an image.
const metaEnv = meta.EnvFile

// lateFiles is how long is waited for files that a node has written: file systems show
// them to others a little later.
const lateFiles = 15 * time.Second

// judge returns nil if the program in the job has come to a verdict, else why not. What
// ended the job from outside says nothing about the image.
func (s InSlurm) judge(ctx context.Context, status slurm.Status) error {
	code, ended := s.ended()
	for end := time.Now().Add(lateFiles); !ended && status.ShouldHaveEnded() && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(time.Second / 2)
		code, ended = s.ended()
	}
	switch {
	case !ended:
		return s.diedWith(status)
	case code == killed:
		return notTheTests(status)
	case code != 0 && status.State.FromOutside():
		return s.diedWith(status) // what failed with the job, of its signal perhaps, proves nothing
	case code == 0, s.KindOf(code) == fault.TestsFailed, s.KindOf(code) == fault.Untested:
		if _, err := bounded.ReadFile(filepath.Join(s.Dir, jobResults, "verdict.json"), maxToldInside); err == nil {
			return nil
		}
	case s.KindOf(code) == fault.Interrupted:
		return s.diedWith(status)
	}
	return s.said(status, code)
}

// said is the error that the program in the job told of.
func (s InSlurm) said(status slurm.Status, code int) error {
	data, _ := bounded.ReadFile(filepath.Join(s.Dir, jobErrors), maxToldInside)
	var told struct{ Error, Hint string }
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	last := lines[len(lines)-1]
	if json.Unmarshal([]byte(last), &told) != nil || told.Error == "" {
		told.Error = last
	}
	if code == cannotExecute || code == notFound {
		told.Hint = "the nodes have to be able to run " + s.Program + ": is their architecture that of this machine?"
	}
	err := fault.New(s.KindOf(code), "%s: %s", status, told.Error)
	return fault.WithHint(err, "%s", told.Hint)
}

// Exit codes of a shell for a program that it could not run, and one that was killed
// outright, as where memory runs out.
const cannotExecute, notFound, killed = 126, 127, 137

// diedWith says why a job has ended without the program's end.
func (s InSlurm) diedWith(status slurm.Status) error {
	untested := func(hint string, args ...any) error {
		return fault.WithHint(fault.New(fault.Untested, "%s: it ended before its tests did%s", status, s.log()), hint, args...)
	}
	shared := "is " + s.Dir + " on a file system that the compute nodes share with this machine? --shared names another directory"
	switch {
	case status.State.Infrastructure(), status.Killed():
		return notTheTests(status)
	case status.State == slurm.Timeout, status.State == slurm.Deadline:
		return untested("give it more time with --slurm time=TIME")
	case status.State == slurm.Cancelled:
		return untested("somebody has cancelled it")
	case status.State == slurm.Unknown:
		return fault.WithHint(fault.New(fault.Network, "%s: Slurm has forgotten it, and it left no results", status), "a retry may help")
	case status.State == slurm.Completed || status.NoFiles():
		return fault.WithHint(fault.New(fault.Untested, "%s: it could not use its directory, or left nothing there", status), "%s", shared)
	case status.Nodes == "":
		return fault.WithHint(fault.New(fault.Untested, "%s: it never ran", status), "check its settings (--slurm, SBATCH_* and SLURM_* variables, the matrix)")
	}
	return fault.WithHint(fault.New(fault.Failure, "%s, exit code %s: it ended before its tests did%s", status, status.ExitCode, s.log()), "%s", shared)
}

// notTheTests is the error for a job that the cluster has ended.
func notTheTests(status slurm.Status) error {
	hint := "the image is not to blame: a retry may help"
	if status.State != slurm.NodeFail && status.State != slurm.BootFail && status.State != slurm.Preempted {
		hint = "it may need more memory (--slurm mem=SIZE); a retry may help"
	}
	return fault.WithHint(fault.New(fault.Network, "%s: the cluster has ended the job", status), "%s", hint)
}

// log returns the last thing that Slurm wrote about the job.
func (s InSlurm) log() string {
	data, err := bounded.ReadFile(filepath.Join(s.Dir, jobLog), maxToldInside)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if last := lines[len(lines)-1]; err == nil && last != "" {
		return ": " + last
	}
	return ""
}
