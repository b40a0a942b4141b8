// Package evidence runs the tests of a mounted image and says what they mean: a
// verdict, with the files that are attached to the image as its evidence.
package evidence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
)

// Mounted makes commands see the content of the image at its mount point.
type Mounted interface {
	Command(proc.Cmd) (proc.Cmd, error)                 // where all else is as on the host
	Sandboxed(sandbox.Spec, proc.Cmd) (proc.Cmd, error) // in a sandbox
}

// Runner is a way to test an image.
type Runner string

// The runners.
const (
	Auto    Runner = ""        // ReFrame if there is anything for it, else the command
	ReFrame Runner = "reframe" // checks as the image's extra/reframe.yaml asks for
	Command Runner = "command" // the image's program extra/test, see docs/testing.md
)

// Files of an image's extra/ directory that say how it is tested.
const (
	reframeFile = "reframe.yaml"
	checksDir   = "reframe"
	commandFile = "test"
)

// Options say what is tested and how.
type Options struct {
	// Mounted is where the tests run. With nil they run outside, as a suite wants
	// that mounts the image by itself in each of its jobs.
	Mounted    Mounted
	Env        meta.Env // of the image
	MountPoint string   // where the image appears; "" is Env.Mount
	Extra      string   // the image's meta/extra as a directory here; "" if it has none
	ImageFile  string   // path of the squashfs, for suites that mount it; may be ""

	Image     meta.Subject // goes into the verdict
	System    string       // the cluster on which the tests run
	UArch     string
	Partition string

	Runner  Runner
	ReFrame string // path of the program; "" is looked for on our PATH
	Suite   Suite  // of checks of the site; the zero value has none
	Retries int    // of a failed ReFrame test; a test that needs one is flaky
	MaxJobs int    // ReFrame tests at the same time on this machine; 0 is one
	Waivers []meta.Waiver

	// The image's own tests, extra/test and checks in extra/reframe/, run in a
	// sandbox. A site's suite runs as its user: it submits jobs.
	NoSandbox bool     // run the image's own tests as our user on the bare machine
	Network   bool     // leave them the network
	Hide      []string // more paths that they must not see
	// Restricted keeps what the tests say out of events; the results have it.
	Restricted bool

	Timeout time.Duration // for all tests; 0 is none
	Scratch string        // an existing private directory for everything the tests write
	Environ []string      // our environment; what tests may know of it is passed on
	Pass    []string      // names of further variables that are passed on
	Now     func() time.Time
	Events  event.Sink

	mark string // of all processes of the run
}

// Suite is a site's collection of ReFrame checks.
type Suite struct {
	Name string // goes into the verdict; "" is the directory's name
	Dir  string // ReFrame runs there
	// Config is the site's configuration file for ReFrame, relative to Dir; "" has
	// one written that runs the checks on this machine.
	Config   string
	Mode     string            // execution mode of that configuration
	Checks   []string          // relative to Dir; nil leaves them to the mode, or takes all
	Features []string          // of this machine, where no Config says so
	Args     []string          // for ReFrame
	Env      map[string]string // for ReFrame
}

// Result is what the tests showed.
type Result struct {
	Verdict meta.Verdict
	// Dir has the content of the artifact uenv/reframe: verdict.json, junit.xml,
	// logs/, and report.json (ReFrame) or report.tap (command).
	Dir string
}

// Err returns nil for an image that passed, or passed but for waived failures;
// else an error of kind TestsFailed or Untested.
func (r Result) Err() error {
	switch v := r.Verdict; v.State {
	case meta.Pass, meta.Waived:
		return nil
	case meta.Untested:
		return fault.New(fault.Untested, "untested: %s", v.Reason)
	default:
		return fault.New(fault.TestsFailed, "tests failed: %s", v.Reason)
	}
}

const stage = "test"

// errTimeout is the cause of a run's end when Options.Timeout is over.
var errTimeout = errors.New("the tests timed out")

// Run runs the tests. Tests that fail, or that cannot be run to their end, are
// not an error but a verdict; an error means that nothing can be said.
func Run(ctx context.Context, o Options) (Result, error) {
	o, err := o.complete()
	if err != nil {
		return Result{}, err
	}
	l, err := newLayout(o.Scratch)
	if err != nil {
		return Result{}, err
	}
	runner, err := o.choose()
	if err != nil {
		return Result{}, err
	}
	o.mark = newMark()
	o.Events.Start(stage, "%s", runner.describe())
	start := o.Now()
	out, err := runner.run(ctx, o, l)
	err = errors.Join(err, endLeftovers(o.mark))
	if err != nil {
		if ctx.Err() != nil {
			err = fault.Wrap(fault.Interrupted, context.Cause(ctx), "test")
		}
		o.Events.Failed(stage, err)
		return Result{}, err
	}
	v := o.verdict(out, start)
	told := v
	if o.Restricted {
		told = Withheld(v)
	}
	o.Events.Emit(outcomeEvent(told))
	return Result{Verdict: v, Dir: l.results}, l.write(v)
}

// outcome is what a runner found out.
type outcome struct {
	runner meta.Runner
	suite  string
	cases  []meta.Case
	none   string // why there are no cases
}

// runner is a chosen way to run the tests.
type runner interface {
	describe() string
	run(ctx context.Context, o Options, l layout) (outcome, error)
}

func (o Options) complete() (Options, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MountPoint == "" {
		o.MountPoint = o.Env.Mount
	}
	if o.System == "" {
		return o, fault.WithHint(fault.New(fault.Usage, "test: it is not known on which system the tests run"), "say so with --system, or by CLUSTER_NAME")
	}
	if o.Scratch == "" {
		return o, fault.New(fault.Usage, "test: no directory to work in")
	}
	for _, path := range []*string{&o.Scratch, &o.Extra, &o.ImageFile, &o.Suite.Dir} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return o, fmt.Errorf("test: %w", err)
		}
		*path = absolute
	}
	return o, nil
}

func (o Options) has(file string) bool {
	if o.Extra == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(o.Extra, file))
	return err == nil
}

// maxExtra bounds a file of extra/ that is read, in bytes.
const maxExtra = 10 << 20

// readExtra reads a file of the image's extra/. The image may be hostile: a link
// out of it is not followed, or errors would show what is in a file of ours.
func (o Options) readExtra(name string) ([]byte, error) {
	data, err := readWritten(o.Extra, name, maxExtra)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the image's extra/%s: %w", name, err)
	}
	return data, nil
}

// choose picks the runner by what the image and the site have.
func (o Options) choose() (runner, error) {
	checks := o.has(checksDir) || o.Suite.Dir != "" && o.has(reframeFile)
	switch {
	case o.Runner == ReFrame, o.Runner == Auto && checks:
		return reframeRunner{}, nil
	case o.Runner == Command, o.Runner == Auto && o.has(commandFile):
		return commandRunner{}, nil
	case o.Runner != Auto:
		return nil, fault.New(fault.Usage, "there is no runner %q (reframe, command)", o.Runner)
	case o.has(reframeFile):
		return noRunner{"the image asks for ReFrame checks by extra/reframe.yaml, but neither the site nor the recipe's extra/reframe/ has any"}, nil
	}
	return noRunner{"the image has no tests: no extra/reframe.yaml, extra/reframe/ or extra/test"}, nil
}

// noRunner stands for an image without tests.
type noRunner struct{ reason string }

func (n noRunner) describe() string { return "nothing to run" }

func (n noRunner) run(context.Context, Options, layout) (outcome, error) {
	return outcome{runner: meta.Runner{Name: "none"}, none: n.reason}, nil
}

func (o Options) verdict(out outcome, start time.Time) meta.Verdict {
	end := meta.At(o.Now())
	v := meta.Verdict{
		Version: meta.VerdictVersion, When: end, Seconds: max(0, end.Sub(start).Round(time.Millisecond).Seconds()),
		System: o.System, UArch: o.UArch, Partition: o.Partition, Suite: out.suite, Image: o.Image, Runner: out.runner,
		Cases: meta.ApplyWaivers(out.cases, o.Waivers, o.System, end.Time),
	}
	d := v.Decide(end.Time)
	v.State, v.Reason, v.Counts = d.State, d.Reason, d.Counts
	if v.State == meta.Untested && v.Counts.Total == 0 && out.none != "" {
		v.Reason = out.none
	}
	return v
}

// Withheld returns a verdict without what tests and their runner have said, for places
// that others can see.
func Withheld(v meta.Verdict) meta.Verdict {
	v.Cases = slices.Clone(v.Cases)
	for i := range v.Cases {
		v.Cases[i].Reason = ""
	}
	v.Runner.Notes = nil
	if v.Runner.Failure != "" {
		v.Runner.Failure = "the runner failed, and what it said is withheld"
		v.Reason = v.Decide(v.When.Time).Reason
	}
	return v
}

func outcomeEvent(v meta.Verdict) event.Event {
	kind := event.Done
	if v.State == meta.Fail || v.State == meta.Untested {
		kind = event.Failed
	}
	return event.Event{Kind: kind, Stage: stage, Message: fmt.Sprintf("%s: %s", v.State, v.Reason), Fields: v.Annotations()}
}

const verdictFile = "verdict.json" // of the results

// layout names the directories of a run below its scratch directory.
type layout struct {
	home, tmp, work string // the tests write there
	results, logs   string // we alone do
}

func newLayout(scratch string) (layout, error) {
	l := layout{
		home: filepath.Join(scratch, "home"), tmp: filepath.Join(scratch, "tmp"), work: filepath.Join(scratch, "work"),
		results: filepath.Join(scratch, "results"), logs: filepath.Join(scratch, "results", "logs"),
	}
	for _, dir := range []string{l.home, l.tmp, l.work, l.logs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return l, fmt.Errorf("test: %w", err)
		}
	}
	if entries, err := os.ReadDir(l.logs); err != nil || len(entries) > 0 {
		return l, fault.New(fault.Usage, "test: %s holds the results of another run", scratch)
	}
	return l, nil
}

// write adds verdict.json and junit.xml to the results.
func (l layout) write(v meta.Verdict) error {
	text, err := v.Encode()
	if err != nil {
		return err
	}
	junit, err := encodeJUnit(v)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{verdictFile: text, "junit.xml": junit} {
		if err := atomicfile.WriteBytes(filepath.Join(l.results, name), 0o644, data); err != nil {
			return fmt.Errorf("write test results: %w", err)
		}
	}
	return nil
}
