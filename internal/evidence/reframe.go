package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/reframe"
)

// reframeRunner runs ReFrame checks of the site and of the recipe.
type reframeRunner struct{}

func (reframeRunner) describe() string { return "ReFrame" }

func (reframeRunner) run(ctx context.Context, o Options, l layout) (out outcome, err error) {
	env := append(o.baseEnviron(l), pairs(o.Suite.Env)...)
	program, err := reframe.Find(ctx, o.ReFrame, env)
	if err != nil {
		return out, fault.Wrap(fault.Untested, err, "run checks")
	}
	call, env, err := o.prepare(l, env)
	if err != nil {
		return out, err
	}
	call.Program, call.System, call.Partition, call.Retries = program, o.System, cmp.Or(call.Partition, o.Partition), o.Retries
	call.Prefix, call.Report = filepath.Join(l.work, outDir), filepath.Join(l.work, reportFile)
	log, err := newLog(filepath.Join(l.logs, "reframe.log"))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	var ended reframe.Ended
	var runErr error
	var boxed bool
	err = settled(log, func(to io.Writer) (_ int, err error) {
		var command proc.Cmd
		if command, boxed, err = o.place(ctx, l, program, o.inTime(call.Command(env))); err != nil {
			return 0, err
		}
		ended, runErr = o.do(ctx, command, to)
		return ended.Exit, nil
	})
	if err != nil {
		return out, err
	}
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	out, err = o.reported(l, ended, runErr)
	out.suite, out.runner.Version, out.runner.Sandbox = o.suiteName(), program.Version, boxed
	return out, errors.Join(err, l.keepOutputs())
}

// do runs ReFrame as long as the tests may take.
func (o Options) do(ctx context.Context, command proc.Cmd, log io.Writer) (reframe.Ended, error) {
	limited, cancel := o.limit(ctx, 2*command.Grace)
	defer cancel()
	start := time.Now()
	e, err := reframe.Do(limited, command, log, o.Events)
	late := o.Timeout > 0 && time.Since(start) >= o.Timeout
	if limited.Err() != nil || late && (e.Exit == timeoutExit || e.Exit == killedExit) {
		err = errTimeout
	}
	return e, err
}

// Names below the work directory.
const (
	outDir     = "out" // what the tests write
	reportFile = "report.json"
	noneDir    = "none"
)

// place returns the command that runs ReFrame: in a sandbox if it loads checks of
// the image, which it does on this machine alone.
func (o Options) place(ctx context.Context, l layout, program reframe.Program, c proc.Cmd) (command proc.Cmd, boxed bool, err error) {
	if o.NoSandbox || o.Suite.Config != "" || !o.has(checksDir) {
		command, err = o.wrap(c)
		return command, false, err
	}
	readable := installation(program.Path)
	if o.Suite.Dir != "" {
		readable = append(readable, o.Suite.Dir)
	}
	version, err := o.boxed(ctx, l, proc.Cmd{Path: program.Path, Args: []string{"--version"}, Env: c.Env}, readable...)
	if err != nil {
		return c, true, err
	}
	if _, err := version.Output(ctx); err != nil {
		return c, true, fault.WithHint(fault.Wrap(fault.Failure, err, "run %s in the sandbox of the image's own checks", program.Path),
			"install ReFrame where all users see it, such as below /opt; --no-sandbox runs the checks on the bare machine")
	}
	command, err = o.boxed(ctx, l, c, readable...)
	return command, true, err
}

// Exit statuses of timeout(1) when the time was over, and when ReFrame had to be
// killed then.
const timeoutExit, killedExit = 124, 137

// inTime returns the command that ends ReFrame when the time is over. This is done
// from inside, next to ReFrame: ended from outside, what makes the image appear
// would die first and take ReFrame with it before it writes its report.
func (o Options) inTime(c proc.Cmd) proc.Cmd {
	if _, ok := proc.Look("timeout"); !ok || o.Timeout <= 0 {
		return c
	}
	c.Args = append([]string{
		"--foreground", "--signal=TERM", "--kill-after=" + inSeconds(c.Grace), inSeconds(o.Timeout), c.Path,
	}, c.Args...)
	c.Path = "timeout"
	return c
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }

// prepare returns the call of ReFrame for the site's configuration, or for one
// that is written here, and the environment for it.
func (o Options) prepare(l layout, env []string) (reframe.Run, []string, error) {
	if o.Suite.Config == "" {
		call, err := o.own(l, env)
		return call, env, err
	}
	call := reframe.Run{Dir: o.Suite.Dir, Config: o.Suite.Config, Mode: o.Suite.Mode, Checks: o.Suite.Checks, Args: o.Suite.Args}
	file, err := l.besideMeta(o.ImageFile, o.Extra)
	if err != nil {
		return call, nil, err
	}
	if file != "" {
		// How the field's suite is told what to test: FILE[@MOUNT].
		env = append(env, "CSCS_RFM_UENV="+file+"@"+o.MountPoint)
	}
	return call, env, nil
}

// besideMeta returns a path of the image beside which there is its meta/extra,
// where suites look for it.
func (l layout) besideMeta(image, extra string) (string, error) {
	if image == "" || extra == "" {
		return image, nil
	}
	if filepath.Join(filepath.Dir(image), meta.MetaTitle, "extra") == extra {
		return image, nil
	}
	dir := filepath.Join(l.work, "image")
	if err := os.MkdirAll(filepath.Join(dir, meta.MetaTitle), 0o755); err != nil {
		return "", fmt.Errorf("test: %w", err)
	}
	linked := filepath.Join(dir, meta.ImageTitle)
	for link, target := range map[string]string{linked: image, filepath.Join(dir, meta.MetaTitle, "extra"): extra} {
		if err := os.Symlink(target, link); err != nil {
			return "", fmt.Errorf("test: %w", err)
		}
	}
	return linked, nil
}

// own writes a configuration that runs checks on this machine, in the
// environments of the image.
func (o Options) own(l layout, env []string) (reframe.Run, error) {
	var call reframe.Run
	environments, prepare, err := o.environments(env)
	if err != nil {
		return call, err
	}
	partition := cmp.Or(o.Partition, "local")
	config, err := reframe.SiteConfig{
		System: o.System, Partition: partition, Features: append([]string{"uenv"}, o.Suite.Features...), MaxJobs: o.MaxJobs,
		Environments: environments, Prepare: prepare,
	}.Encode()
	if err != nil {
		return call, err
	}
	call = reframe.Run{Dir: l.work, Config: filepath.Join(l.work, "site.py"), Partition: partition, Mode: o.Suite.Mode, Recursive: true, Args: o.Suite.Args}
	if err := os.WriteFile(call.Config, config, 0o600); err != nil {
		return call, fmt.Errorf("write ReFrame configuration: %w", err)
	}
	if o.has(checksDir) {
		call.Checks = append(call.Checks, filepath.Join(o.Extra, checksDir))
	}
	switch {
	case o.Suite.Dir != "" && len(o.Suite.Checks) == 0:
		call.Checks = append(call.Checks, o.Suite.Dir)
	case o.Suite.Dir != "":
		for _, check := range o.Suite.Checks {
			call.Checks = append(call.Checks, filepath.Join(o.Suite.Dir, check))
		}
	}
	if len(call.Checks) == 0 {
		none := filepath.Join(l.work, noneDir) // given nothing ReFrame would look elsewhere
		call.Checks = []string{none}
		if err := os.Mkdir(none, 0o700); err != nil {
			return call, fmt.Errorf("test: %w", err)
		}
	}
	return call, nil
}

// environments returns those of extra/reframe.yaml, or one with the default view
// where there is none, and the commands that load the views of each.
func (o Options) environments(env []string) ([]reframe.Environment, map[string][]string, error) {
	list := []reframe.Environment{{Name: "default"}}
	if o.has(reframeFile) {
		data, err := o.readExtra(reframeFile)
		if err != nil {
			return nil, nil, err
		}
		if list, err = reframe.ParseEnvironments("extra/"+reframeFile, data); err != nil {
			return nil, nil, err
		}
	}
	prepare := map[string][]string{}
	for i := range list {
		e := &list[i]
		views := e.Views
		if len(views) == 0 && len(e.Activation) == 0 {
			views = o.defaultViews()
		}
		inside, err := o.withViews(env, views)
		if err != nil {
			return nil, nil, fmt.Errorf("environment %s of extra/reframe.yaml: %w", e.Name, err)
		}
		e.Features = append(slices.Clone(e.Features), "uenv")
		if strings.HasPrefix(o.Env.Name, "prgenv") {
			e.Features = append(e.Features, "prgenv")
		}
		e.Name = o.Env.Name + "_" + e.Name
		diff := changed(env, inside)
		for _, name := range slices.Sorted(maps.Keys(diff)) {
			prepare[e.Name] = append(prepare[e.Name], reframe.Export(name, diff[name]))
		}
	}
	return list, prepare, nil
}

// reported reads the report and judges how ReFrame ended. ReFrame writes no
// report where it selected no check. The report goes to the results.
func (o Options) reported(l layout, e reframe.Ended, runErr error) (outcome, error) {
	out := outcome{runner: meta.Runner{Name: string(ReFrame), Exit: e.Exit, Notes: e.Warnings}}
	var report reframe.Report
	data, err := readWritten(l.work, reportFile, maxReport)
	if err != nil {
		err = fmt.Errorf("read ReFrame's %s: %w", reportFile, err)
	} else {
		if err := os.WriteFile(filepath.Join(l.results, reportFile), data, 0o644); err != nil {
			return out, fmt.Errorf("write test results: %w", err)
		}
		report, err = reframe.ParseReport(data)
	}
	for _, c := range report.Cases {
		if !c.Fixture || c.Result != reframe.Pass && c.Result != reframe.Skip {
			out.cases = append(out.cases, caseOf(c))
		}
	}
	out.runner.Failure = o.broken(out.cases, e, err, runErr)
	if len(out.cases) == 0 && out.runner.Failure == "" {
		out.none = noCases(e, err)
	}
	return out, nil
}

const maxReport = 64 << 20 // bytes

// broken returns what counts as a failure although no case tells of it.
func (o Options) broken(cases []meta.Case, e reframe.Ended, reportErr, runErr error) string {
	switch {
	case errors.Is(runErr, errTimeout):
		return o.timedOut()
	case runErr != nil:
		return fmt.Sprintf("ReFrame: %v", runErr)
	case e.Started == 0 && len(cases) == 0:
		return "" // nothing was tested: that is no failure of the image
	case e.Signal:
		return fmt.Sprintf("ReFrame was ended by signal %d", e.Exit-128)
	case errors.Is(reportErr, fs.ErrNotExist):
		return fmt.Sprintf("ReFrame started %d tests, exited with status %d and wrote no report", e.Started, e.Exit)
	case reportErr != nil:
		return reportErr.Error()
	case e.Exit != 0 && failures(cases) == 0:
		return fmt.Sprintf("ReFrame exited with status %d although no test failed", e.Exit)
	}
	return ""
}

// noCases says why nothing was tested, by the first thing that explains it.
func noCases(e reframe.Ended, reportErr error) string {
	messages := slices.Concat(e.Errors, e.Warnings)
	switch {
	case e.Exit != 0 && len(messages) > 0:
		return "ReFrame ran no test: " + messages[0]
	case e.Exit != 0:
		return fmt.Sprintf("ReFrame ran no test and exited with status %d", e.Exit)
	case reportErr != nil && !errors.Is(reportErr, fs.ErrNotExist):
		return "ReFrame ran no test: " + reportErr.Error()
	case len(messages) > 0:
		return "ReFrame found no check for this image and system: " + messages[0]
	}
	return "ReFrame found no check for this image and system"
}

// caseOf translates a result: what ReFrame does not call a pass, a skip or an
// expected failure has failed.
func caseOf(c reframe.Case) meta.Case {
	out := meta.Case{
		Name: shorten(c.Name, maxName), System: c.System, Partition: c.Partition, Environment: c.Environ, Outcome: meta.Failed,
		Phase: c.Phase, Reason: shorten(c.Reason, maxReason), Seconds: c.Seconds, Flaky: c.Flaky, JobID: c.JobID,
	}
	if c.Attempts > 1 {
		out.Attempts = c.Attempts
	}
	switch c.Result {
	case reframe.Pass:
		out.Outcome = meta.Passed
	case reframe.Skip:
		out.Outcome = meta.Skipped
	case reframe.XFail:
		out.Expected = true
	}
	if out.Outcome == meta.Failed && out.Reason == "" {
		out.Reason = reasonOf(c.Result)
	}
	for _, p := range c.Perf {
		out.Metrics = append(out.Metrics, meta.Metric{
			Name: p.Name, Value: p.Value, Unit: p.Unit, Reference: p.Reference, Lower: p.Lower, Upper: p.Upper, OK: p.OK,
		})
	}
	return out
}

func reasonOf(r reframe.Result) string {
	switch r {
	case reframe.Fail:
		return "failed"
	case reframe.FailDeps:
		return "a test that it depends on failed"
	case reframe.Abort:
		return "ended before it was done"
	case reframe.XFail:
		return "failed as the check expects"
	case reframe.XPass:
		return "passed although the check expects a failure"
	}
	return fmt.Sprintf("ended as %q, which is not known", r)
}

func pairs(m map[string]string) []string {
	var env []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		env = append(env, name+"="+m[name])
	}
	return env
}
