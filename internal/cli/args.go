package cli

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/schema"
)

// arranged is a command line sorted into its parts. urfave/cli takes flags only
// before arguments, and silently takes later ones as arguments; people write
// them anywhere. So the line is put in order, and checked, before it is parsed.
type arranged struct {
	command *command
	path    []string // names of command and subcommand
	global  []string // global flags with their values
	flags   []string // the command's flags with their values
	args    []string
	tail    []string // what follows "--"
	hasTail bool
	help    bool
}

// argv returns the line in the order that urfave/cli reads.
func (a arranged) argv(program string) []string {
	return slices.Concat([]string{program}, a.global, a.path, a.flags, []string{"--"}, a.args)
}

type arranger struct {
	commands []*command
	global   []cli.Flag
	line     arranged
}

// arrange sorts args. Unknown commands and flags and missing values are errors
// of kind fault.Usage.
func arrange(commands []*command, global []cli.Flag, args []string) (arranged, error) {
	a := &arranger{commands: commands, global: global}
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			a.line.tail, a.line.hasTail = args, true
			return a.line, nil
		case len(word) > 1 && word[0] == '-':
			rest, err := a.flag(word, args)
			if err != nil {
				return a.line, err
			}
			args = rest
		case a.line.command == nil || len(a.line.command.sub) > 0:
			if err := a.name(word); err != nil {
				return a.line, err
			}
		default:
			a.line.args = append(a.line.args, word)
		}
	}
	return a.line, nil
}

// flag takes one flag and its value; it returns the words that are left.
func (a *arranger) flag(word string, rest []string) ([]string, error) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	if name == "help" || name == "h" {
		a.line.help = true
		return rest, nil
	}
	target := &a.line.global
	found := lookupFlag(a.global, name)
	if found == nil && a.line.command != nil {
		found, target = lookupFlag(a.line.command.flags, name), &a.line.flags
	}
	if found == nil {
		return nil, a.unknownFlag(word, name)
	}
	*target = append(*target, word)
	if hasValue || isSwitch(found) {
		return rest, nil
	}
	if len(rest) == 0 || rest[0] == "--" {
		return nil, usageError(a.line.path, "flag %s needs a value", word)
	}
	*target = append(*target, rest[0])
	return rest[1:], nil
}

func (a *arranger) unknownFlag(word, name string) error {
	known := flagNames(a.global)
	if a.line.command != nil {
		known = append(known, flagNames(a.line.command.flags)...)
	}
	err := usageError(a.line.path, "unknown flag %s", word)
	if guess := schema.Nearest(name, known); guess != "" {
		return fault.WithHint(err, "did you mean --%s?", guess)
	}
	return err
}

// name takes the name of a command or subcommand.
func (a *arranger) name(word string) error {
	commands := a.commands
	if a.line.command != nil {
		commands = a.line.command.sub
	}
	i := slices.IndexFunc(commands, func(c *command) bool { return c.name == word })
	if i < 0 {
		err := usageError(a.line.path, "unknown command %q", word)
		if guess := schema.Nearest(word, commandNames(commands)); guess != "" {
			return fault.WithHint(err, "did you mean '%s'?", strings.Join(append(slices.Clone(a.line.path), guess), " "))
		}
		return err
	}
	a.line.command = commands[i]
	a.line.path = append(a.line.path, word)
	return nil
}

// usageError is an error in the command line, with a pointer to the help.
func usageError(path []string, format string, args ...any) error {
	words := append([]string{programName}, path...)
	return fault.WithHint(fault.New(fault.Usage, format, args...), "see '%s --help'", strings.Join(words, " "))
}

func lookupFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func isSwitch(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

func flagNames(flags []cli.Flag) []string {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()[0])
	}
	return names
}

func commandNames(commands []*command) []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	return names
}
