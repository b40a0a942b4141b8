package cli

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/site"
)

const programName = "uenv-ci"

// command is one command of the program: its names and help, its flags, and the
// function that does it. Everything that all commands share is in newApp.
type command struct {
	name     string
	group    string // heading in the overview
	usage    string // one line
	args     string // synopsis of the arguments
	details  string // a paragraph or two
	examples string // command lines, with a comment above each
	flags    []cli.Flag
	minArgs  int
	maxArgs  int // -1: any number
	takesCmd bool

	siteless   bool // does not read the site file
	checksSite bool // a site file with mistakes is what it checks, not an error
	forUsers   bool // what is not trusted of a site file that was found is no concern of its users
	creates    bool // may be the first to use a registry: the directory of oci:DIR need not exist
	writes     bool // may change a registry: cached answers are dropped afterwards
	takesLocal bool // its first argument is a label of the local repository

	run func(ctx context.Context, in *invocation) (result, error)
	sub []*command
}

// result is what a command found out. It is shown as text, or marshalled as one
// JSON document.
type result interface {
	text(p *printer)
}

// invocation is one use of a command.
type invocation struct {
	*cli.Context
	globals
	streams
	root   *command // the command, or the one that it is a subcommand of
	args   []string
	tail   []string // what followed "--"
	out    *printer
	events event.Sink               // shows what the work says
	site   *site.Site               // the site file; empty without one
	client localrepo.ClientSettings // what flags and site file leave unset
	// siteWrong is set if the site file has mistakes and the command checksSite; only
	// its File is known then.
	siteWrong bool
}

func (in *invocation) arg(i int) string {
	if i < len(in.args) {
		return in.args[i]
	}
	return ""
}

// newApp makes the parser of one command line. It closes the traps of
// urfave/cli v2 in one place: nothing in it prints or exits by itself.
func newApp(s streams, commands []*command, line arranged, done func(result, error)) *cli.App {
	app := &cli.App{
		Name:            programName,
		Writer:          s.stderr,
		ErrWriter:       s.stderr,
		HideHelp:        true,
		HideHelpCommand: true,
		HideVersion:     true,
		Flags:           globalFlags(),
		// A path may have a comma; where lists are wanted commaList takes them apart.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return usageError(line.path, "%v", err) },
	}
	for _, c := range commands {
		app.Commands = append(app.Commands, newCommand(c, c, s, line, done))
	}
	return app
}

func newCommand(c, root *command, s streams, line arranged, done func(result, error)) *cli.Command {
	made := &cli.Command{
		Name:            c.name,
		Flags:           c.flags,
		HideHelp:        true,
		HideHelpCommand: true,
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError(line.path, "%v", err) },
	}
	for _, sub := range c.sub {
		made.Subcommands = append(made.Subcommands, newCommand(sub, root, s, line, done))
	}
	if c.run == nil {
		return made
	}
	made.Action = func(parsed *cli.Context) error {
		g, err := readGlobals(parsed)
		if err != nil {
			return err
		}
		g.reporter.dumb = s.getenv("TERM") == "dumb"
		r, err := newReporter(s.stderr, g.reporter)
		if err != nil {
			return err
		}
		in := &invocation{Context: parsed, globals: g, streams: s, root: root, args: line.args, tail: line.tail, events: r.sink, site: &site.Site{}}
		in.out = newPrinter(s.stdout, s.environ)
		if !c.siteless {
			if err := in.readSite(); err != nil {
				return err
			}
		}
		res, err := c.run(parsed.Context, in)
		if root.writes {
			catalog.Forget(in.cacheDir("catalog"))
		}
		done(res, err)
		return nil
	}
	return made
}

// checkArgs checks the number of arguments.
func (c *command) checkArgs(line arranged) error {
	switch n := len(line.args); {
	case c.run == nil:
		return usageError(line.path, "%s needs a subcommand: %s", strings.Join(line.path, " "), strings.Join(commandNames(c.sub), ", "))
	case n < c.minArgs:
		return usageError(line.path, "missing argument: %s %s", strings.Join(line.path, " "), c.args)
	case c.takesCmd && c.maxArgs >= 0 && n > c.maxArgs:
		return usageError(line.path, "unexpected argument %q: the command comes after '--'", line.args[c.maxArgs])
	case c.maxArgs >= 0 && n > c.maxArgs:
		return usageError(line.path, "unexpected argument %q", line.args[c.maxArgs])
	case line.hasTail && !c.takesCmd:
		return usageError(line.path, "'%s' takes no '-- COMMAND'", strings.Join(line.path, " "))
	}
	return nil
}

// synopsis is the command's usage line.
func (c *command) synopsis(path []string) string {
	words := append([]string{programName}, path...)
	if len(c.sub) > 0 {
		words = append(words, "COMMAND")
	}
	if len(c.flags) > 0 {
		words = append(words, "[flags]")
	}
	if c.args != "" {
		words = append(words, c.args)
	}
	return strings.Join(words, " ")
}
