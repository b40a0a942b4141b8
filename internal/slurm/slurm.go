// Package slurm submits batch jobs to Slurm, follows and cancels them, by Slurm's own
// commands: sbatch, scontrol, squeue, scancel, and sacct where there is accounting.
package slurm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// Client talks to the Slurm of this machine.
type Client struct {
	// Environ is our environment. Of it Slurm's commands get what they need to find
	// and convince their controller.
	Environ []string
	// Patience is how long a command may take; 0 means 30 seconds. Without a
	// controller they would try for long.
	Patience time.Duration
}

// Job is a batch job to be submitted.
type Job struct {
	Name   string
	Dir    string // where it runs, and the nodes have it too
	Log    string // the file for what it writes, besides what the script redirects
	Script string
	// Env is all that it gets of the environment besides Slurm's own variables; a
	// token of Slurm's is taken out again before the script runs.
	Env      []string
	Settings Settings
}

const jwt = "SLURM_JWT" // a token for the controller

// passed are the variables for Slurm's commands.
var passed = []string{"PATH", "HOME", "USER", "LOGNAME", "LD_LIBRARY_PATH", "SLURM_CONF", jwt}

func (c Client) environ() []string {
	env := []string{}
	for _, entry := range c.Environ {
		name, _, _ := strings.Cut(entry, "=")
		if slices.Contains(passed, name) {
			env = append(env, entry)
		}
	}
	return env
}

// Available returns nil if Slurm's commands are installed, else what is missing.
func Available() error {
	for _, name := range []string{"sbatch", "scontrol", "squeue", "scancel"} {
		if _, ok := proc.Look(name); !ok {
			err := fault.New(fault.Untested, "Slurm's command %s is not installed here", name)
			return fault.WithHint(err, "use a node from which jobs can be submitted, or '--executor local' in a job of your own")
		}
	}
	return nil
}

var jobID = regexp.MustCompile(`^([0-9]+)(;[^\s;]+)?$`)

// Submit submits a job and returns its number. A job is never run twice by itself: what
// becomes of a lost one is ours to decide.
func (c Client) Submit(ctx context.Context, j Job) (string, error) {
	env := append(c.environ(), j.Env...)
	args := append([]string{
		"--parsable", "--job-name=" + j.Name, "--chdir=" + j.Dir, "--output=" + strings.ReplaceAll(j.Log, "%", "%%"),
		"--export=ALL", "--no-requeue",
	}, j.Settings.args()...)
	out, err := c.run(ctx, proc.Cmd{Path: "sbatch", Args: args, Env: env, Stdin: strings.NewReader(guarded(j.Script))})
	if err != nil {
		return "", fmt.Errorf("submit a job: %w", err)
	}
	m := jobID.FindStringSubmatch(strings.TrimSpace(out))
	if m == nil {
		return "", fault.New(fault.Failure, "submit a job: sbatch said %q instead of its number", strings.TrimSpace(out))
	}
	return m[1], nil
}

// guarded takes the controller's token out of the script's environment: sbatch needs
// it and gives all its variables to the job. The script begins anew without it, since
// /proc shows for ever what a program began with, to all programs of the same user.
func guarded(script string) string {
	first, rest, _ := strings.Cut(script, "\n")
	return first + "\n" + `if [ -n "${` + jwt + `+set}" ]; then unset ` + jwt + `; exec "$0" "$@"; fi` + "\n" + rest
}

// Cancel ends a job, or all jobs of ours with a name. One that has ended already is no
// error.
func (c Client) Cancel(ctx context.Context, job string) error {
	args := []string{job}
	if _, err := strconv.Atoi(job); err != nil {
		args = []string{"--name=" + job, "--user=" + strconv.Itoa(os.Geteuid())}
	}
	_, err := c.run(ctx, proc.Cmd{Path: "scancel", Args: args, Env: c.environ()})
	if errors.Is(err, errUnknown) {
		return nil
	}
	return fault.WithHint(wrap(err, "cancel job %s", job), "see to it yourself: 'scancel %s'", strings.Join(args, " "))
}

// wrap is fmt.Errorf for an error that may be nil.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// Listed is a job of ours that Slurm knows and that has not ended.
type Listed struct {
	ID, Name, Dir string
}

// List returns our jobs, but for those that are just ending.
func (c Client) List(ctx context.Context) ([]Listed, error) {
	out, err := c.run(ctx, proc.Cmd{
		Path: "squeue", Args: []string{"--noheader", "--states=PENDING,RUNNING,SUSPENDED", "--user=" + strconv.Itoa(os.Geteuid()), "--format=%i|%j|%Z"}, Env: c.environ(),
	})
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	var jobs []Listed
	for line := range strings.Lines(out) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 3); len(f) == 3 && jobID.MatchString(f[0]) {
			jobs = append(jobs, Listed{f[0], f[1], f[2]})
		}
	}
	return jobs, nil
}

// errUnknown is that Slurm does not know a job, any more.
var errUnknown = errors.New("unknown to Slurm")

// run runs a command of Slurm's, as long as is to be borne.
func (c Client) run(ctx context.Context, command proc.Cmd) (string, error) {
	patience := c.Patience
	if patience == 0 {
		patience = 30 * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command.Grace = time.Second
	out, err := command.Output(limited)
	var exit *proc.ExitError
	switch {
	case err == nil:
		return string(out), nil
	case ctx.Err() != nil:
		return "", fault.Wrap(fault.Interrupted, context.Cause(ctx), "%s", command.Path)
	case limited.Err() != nil:
		return "", fault.WithHint(fault.New(fault.Network, "%s has not answered within %s", command.Path, patience), noController)
	case errors.As(err, &exit):
		return "", explain(command.Path, exit.Stderr)
	}
	return "", err
}

const noController = "is the Slurm controller up, and does SLURM_CONF name the right cluster? 'scontrol ping' tells"
