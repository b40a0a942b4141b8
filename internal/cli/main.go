// Package cli is the program as its users see it: it turns a command line into
// one call, and the call's value, events and errors into text or JSON.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"uenv-ci.dev/internal/fault"
)

// streams is what a command may talk to.
type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
}

// getenv looks up a variable of the environment the program was started with.
func (s streams) getenv(name string) string {
	for _, entry := range slices.Backward(s.environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// Main runs one command line (without the program's name) and returns the exit
// code. The first SIGINT or SIGTERM, or the end of the terminal, cancels the work,
// which cleans up behind itself; a second one ends the program at once.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unlessIgnored(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)...)
	defer stop()
	context.AfterFunc(ctx, stop)
	s := streams{os.Stdin, os.Stdout, os.Stderr, os.Environ()}
	return run(ctx, s, args)
}

// unlessIgnored returns the signals, without a SIGHUP that is to be ignored: under nohup
// the work outlives its terminal.
func unlessIgnored(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(signals, func(s os.Signal) bool { return s == syscall.SIGHUP && signal.Ignored(s) })
}

func run(ctx context.Context, s streams, args []string) int {
	if len(args) > 0 && args[0] == completeWord {
		complete(ctx, s, args[1:])
		return 0
	}
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	commands := allCommands()
	line, err := arrange(commands, globalFlags(), args)
	asJSON := wantsJSON(line.global)
	if err != nil { // it may not have come as far as the flag
		asJSON = wantsJSON(args)
	}
	switch {
	case line.help || err == nil && line.command == nil && len(args) == 0:
		showHelp(s.stdout, commands, line)
		return 0
	case err == nil && line.command == nil:
		err = usageError(nil, "no command given")
	case err == nil:
		err = line.command.checkArgs(line)
	}
	if err == nil {
		err = execute(ctx, s, commands, line, asJSON)
	}
	if err != nil {
		if ctx.Err() != nil && !errors.As(err, new(exitStatus)) {
			err = interrupted(err, context.Cause(ctx))
		}
		reportError(s.stderr, err, asJSON)
	}
	return exitCode(err)
}

func execute(ctx context.Context, s streams, commands []*command, line arranged, asJSON bool) error {
	var res result
	var runErr error
	app := newApp(s, commands, line, func(r result, err error) { res, runErr = r, err })
	if err := app.RunContext(ctx, line.argv(programName)); err != nil {
		return err
	}
	if res == nil {
		return runErr
	}
	if err := show(s, res, asJSON); err != nil {
		return errors.Join(runErr, err)
	}
	return runErr
}

func show(s streams, res result, asJSON bool) error {
	if !asJSON {
		p := newPrinter(s.stdout, s.environ)
		res.text(p)
		return p.flush()
	}
	encoder := json.NewEncoder(s.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return fault.Wrap(fault.Failure, encoder.Encode(res), "write result")
}

func showHelp(w io.Writer, commands []*command, line arranged) {
	if line.command == nil {
		overview(w, commands)
		return
	}
	helpFor(w, line.command, line.path)
}

// wantsJSON tells whether --format json was given; it is asked before the line
// is parsed, so that errors of the line are reported in the right form too.
func wantsJSON(global []string) bool {
	for i, word := range global {
		if word == "--" {
			break
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if name != "format" {
			continue
		}
		if !hasValue && i+1 < len(global) {
			value = global[i+1]
		}
		return value == "json"
	}
	return false
}
