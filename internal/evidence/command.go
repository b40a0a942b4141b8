package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
)

// commandRunner runs the image's extra/test, a program that prints TAP.
type commandRunner struct{}

func (commandRunner) describe() string { return "extra/test" }

func (commandRunner) run(ctx context.Context, o Options, l layout) (out outcome, err error) {
	program := filepath.Join(o.Extra, commandFile)
	if o.Extra == "" || !o.has(commandFile) {
		return outcome{runner: meta.Runner{Name: string(Command)}, none: "the image has no extra/test"}, nil
	}
	if info, err := os.Stat(program); err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return out, fault.WithHint(fault.New(fault.Invalid, "the image's extra/test is not an executable file"), "chmod +x extra/test in the recipe")
	}
	env, err := o.withViews(o.baseEnviron(l), o.defaultViews())
	if err != nil {
		return out, err
	}
	log, err := newLog(filepath.Join(l.logs, "test.log"))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	tap, err := newLog(filepath.Join(l.results, "report.tap"))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, tap.Close()) }()
	w := &tapWriter{parser: newTAP(), to: io.MultiWriter(log, tap), events: o.Events}
	var ended ended
	err = settled(log, func(stderr io.Writer) (int, error) {
		c, err := o.boxed(ctx, l, proc.Cmd{Path: program, Dir: l.work, Env: env, Stdout: w, Stderr: stderr})
		if err == nil {
			ended, err = o.execute(ctx, c)
		}
		return ended.exit, err
	})
	if err != nil {
		return out, err
	}
	w.flush()
	out = w.outcome(ended)
	out.runner.Sandbox = !o.NoSandbox
	return out, nil
}

// ended is how a program ended.
type ended struct {
	exit    int
	failure string // time-out, signal, or that it could not be started; "" else
}

// execute runs a command. Only an interruption is an error.
func (o Options) execute(ctx context.Context, c proc.Cmd) (ended, error) {
	limited, cancel := o.limit(ctx, 0)
	defer cancel()
	err := c.Run(limited)
	var exit *proc.ExitError
	switch {
	case ctx.Err() != nil:
		return ended{}, context.Cause(ctx)
	case limited.Err() != nil:
		return ended{failure: o.timedOut()}, nil
	case errors.As(err, &exit) && exit.Signal != 0:
		return ended{exit.Code, fmt.Sprintf("the tests were ended by signal %d (%s)", exit.Signal, exit.Signal)}, nil
	case errors.As(err, &exit):
		return ended{exit: exit.Code}, nil
	case err != nil:
		return ended{failure: err.Error()}, nil
	}
	return ended{}, nil
}

// wrap returns the command that runs c where the image is mounted.
func (o Options) wrap(c proc.Cmd) (proc.Cmd, error) {
	if o.Mounted == nil {
		return c, nil
	}
	wrapped, err := o.Mounted.Command(c)
	if err != nil {
		return c, fmt.Errorf("run the tests where the image is mounted: %w", err)
	}
	return wrapped, nil
}

// limit ends the context when the tests timed out, and some more.
func (o Options) limit(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	if o.Timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, o.Timeout+more, errTimeout)
}

func (o Options) timedOut() string { return fmt.Sprintf("the tests were stopped after %s", o.Timeout) }

// tapWriter reads TAP off a program's output.
type tapWriter struct {
	parser *tapParser
	to     io.Writer
	events event.Sink
	line   []byte
}

const maxTAPLine = 64 << 10 // bytes

// Write implements io.Writer.
func (w *tapWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		w.line = append(w.line, line[:min(len(line), maxTAPLine-len(w.line))]...)
		if whole {
			w.flush()
		}
		rest = after
	}
	return w.to.Write(p)
}

// flush reads the line that was collected.
func (w *tapWriter) flush() {
	before := len(w.parser.cases)
	w.parser.line(string(bytes.ToValidUTF8(w.line, []byte("\ufffd"))))
	w.line = w.line[:0]
	if now := len(w.parser.cases); now > before {
		w.events.Progress(stage, int64(now), int64(max(0, w.parser.planned)), "tests")
		if c := w.parser.cases[now-1]; c.Outcome != meta.Passed {
			w.events.Info(stage, "%s %s", c.Outcome, c.Name)
		}
	}
}

// outcome puts together what the tests say and how their program ended.
func (w *tapWriter) outcome(e ended) outcome {
	p := w.parser
	out := outcome{suite: "recipe", cases: p.cases, runner: meta.Runner{Name: string(Command), Exit: e.exit, Failure: e.failure}}
	if out.runner.Failure == "" {
		out.runner.Failure = p.failure()
	}
	if out.runner.Failure == "" && e.exit != 0 && failures(p.cases) == 0 {
		out.runner.Failure = fmt.Sprintf("extra/test exited with status %d although no test failed", e.exit)
	}
	if len(p.cases) == 0 {
		out.none = "extra/test ran no test"
		if p.skipAll != "" {
			out.none += ": " + p.skipAll
		}
	}
	return out
}

func failures(cases []meta.Case) int {
	n := 0
	for _, c := range cases {
		if c.Outcome == meta.Failed {
			n++
		}
	}
	return n
}
