package reframe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// Program is an installed ReFrame.
type Program struct {
	Path    string
	Version string
}

// Find locates ReFrame: the configured path, or "reframe" on our PATH. env is
// the environment in which it will run.
func Find(ctx context.Context, configured string, env []string) (Program, error) {
	path, found := configured, true
	if path == "" {
		path, found = proc.Look("reframe")
	}
	if !found {
		return Program{}, fault.WithHint(fault.New(fault.NotFound, "ReFrame is not installed"),
			"install it ('pip install ReFrame-HPC'), or name its 'reframe' program")
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link may lie where a sandbox does not show it
	}
	out, err := proc.Cmd{Path: path, Args: []string{"--version"}, Env: env}.Output(ctx)
	if err != nil {
		return Program{}, fmt.Errorf("ask ReFrame for its version: %w", err)
	}
	p := Program{Path: path, Version: strings.TrimSpace(string(out))}
	major, _, _ := strings.Cut(p.Version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 4 {
		return Program{}, fault.New(fault.Failure, "%s is ReFrame %q; version 4.6 or later is needed", path, p.Version)
	}
	return p, nil
}

// Run is one call of ReFrame that runs checks.
type Run struct {
	Program   Program
	Dir       string   // working directory
	Config    string   // configuration file; relative to Dir
	Checks    []string // files or directories; relative to Dir; nil leaves them to the mode or configuration
	Recursive bool     // search directories below Checks
	System    string
	Partition string // "" is every partition
	Mode      string // an execution mode of the configuration
	Retries   int    // attempts after a failure
	Prefix    string // directory for what the tests write
	Report    string // JSON report to write
	Args      []string
}

// grace is how long ReFrame may take to end its tests and write its report.
const grace = 30 * time.Second

// Command returns the call.
func (r Run) Command(env []string) proc.Cmd {
	system := r.System
	if r.Partition != "" {
		system += ":" + r.Partition
	}
	args := []string{"-C", r.Config}
	for _, c := range r.Checks {
		args = append(args, "-c", c)
	}
	if r.Recursive {
		args = append(args, "-R")
	}
	if r.Mode != "" {
		args = append(args, "--mode="+r.Mode)
	}
	args = append(args, "--system="+system, "--nocolor", "--prefix="+r.Prefix,
		"--report-file="+r.Report, "--max-retries="+strconv.Itoa(r.Retries))
	args = append(append(args, r.Args...), "-r")
	return proc.Cmd{Path: r.Program.Path, Args: args, Dir: r.Dir, Env: env, Grace: grace}
}

// Ended is how a call of ReFrame ended.
type Ended struct {
	Exit     int      // exit status; 128+n if a signal ended it
	Signal   bool     // a signal ended it
	Started  int      // tests that it said it started
	Warnings []string // what it warned of, such as check files that it skipped
	Errors   []string // what it called an error
}

// Do runs a Command, copies what it says to log and emits progress events. An
// exit status that is not zero is no error here. At the end of ctx ReFrame gets
// the time to write its report; the error is then that of ctx.
func Do(ctx context.Context, c proc.Cmd, log io.Writer, events event.Sink) (Ended, error) {
	w := &watcher{log: log, events: events}
	c.Stdout, c.Stderr = w, w
	err := c.Run(ctx)
	w.end()
	var exit *proc.ExitError
	if errors.As(err, &exit) {
		w.ended.Exit, w.ended.Signal = exit.Code, exit.Signal != 0
		return w.ended, nil
	}
	return w.ended, err
}

// watcher reads ReFrame's output line by line.
type watcher struct {
	log    io.Writer
	events event.Sink
	line   []byte
	ended  Ended
}

const (
	maxLine     = 4 << 10 // bytes of a line that are looked at
	maxMessages = 20      // warnings and errors that are kept
	stage       = "test"
)

var finished = regexp.MustCompile(`^\[ +(OK|FAIL|SKIP|XFAIL|XPASS|ABORT) \] +\( *(\d+)/(\d+)\) (.*)$`)

// Write implements io.Writer.
func (w *watcher) Write(p []byte) (int, error) {
	if _, err := w.log.Write(p); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		w.line = append(w.line, line[:min(len(line), maxLine-len(w.line))]...)
		if whole {
			w.end()
		}
		rest = after
	}
	return len(p), nil
}

// end looks at the line that was collected.
func (w *watcher) end() {
	line := strings.TrimRight(string(w.line), "\r")
	w.line = w.line[:0]
	switch {
	case strings.HasPrefix(line, "[ RUN "):
		w.ended.Started++
	case strings.HasPrefix(line, "WARNING: "):
		w.ended.Warnings = keep(w.ended.Warnings, line[len("WARNING: "):])
	case strings.HasPrefix(line, "ERROR: "):
		w.ended.Errors = keep(w.ended.Errors, line[len("ERROR: "):])
	default:
		if m := finished.FindStringSubmatch(line); m != nil {
			w.progress(m)
		}
	}
}

func (w *watcher) progress(m []string) {
	done, _ := strconv.ParseInt(m[2], 10, 64)
	total, _ := strconv.ParseInt(m[3], 10, 64)
	w.events.Progress(stage, done, total, "tests")
	if m[1] != "OK" {
		w.events.Info(stage, "%s %s", strings.ToLower(m[1]), m[4])
	}
}

func keep(messages []string, text string) []string {
	if len(messages) < maxMessages {
		messages = append(messages, text)
	}
	return messages
}
