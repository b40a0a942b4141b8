package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// groups are the headings of the overview, in order.
var groups = [...]string{"Recipes", "CI", "Users", "Staff", "Image files", "Help"}

// overview writes the program's help.
func overview(w io.Writer, commands []*command) {
	fmt.Fprintf(w, `%[1]s takes user environments from recipe to user: it builds, tests, publishes,
promotes and pulls them.

Usage:
  %[1]s [global flags] COMMAND [flags] [arguments]

`, programName)
	for _, group := range groups {
		fmt.Fprintf(w, "%s:\n", group)
		for _, c := range commands {
			if c.group != group {
				continue
			}
			if len(c.sub) == 0 {
				fmt.Fprintf(w, "  %-18s %s\n", c.name, c.usage)
			}
			for _, sub := range c.sub {
				fmt.Fprintf(w, "  %-18s %s\n", c.name+" "+sub.name, sub.usage)
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Global flags:")
	writeFlags(w, globalFlags())
	fmt.Fprintf(w, `
Labels are [namespace::]name/version:tag@system%%uarch. Flags may come before or
after arguments. '%[1]s COMMAND --help' explains a command.
New here? '%[1]s demo' takes an example from recipe to user in a few seconds.
`, programName)
}

// helpFor writes the help of one command.
func helpFor(w io.Writer, c *command, path []string) {
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s\n", capitalise(c.usage), c.synopsis(path))
	if c.details != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.details))
	}
	if len(c.sub) > 0 {
		fmt.Fprintln(w, "\nCommands:")
		for _, sub := range c.sub {
			fmt.Fprintf(w, "  %-18s %s\n", sub.name, sub.usage)
		}
	}
	if len(c.flags) > 0 {
		fmt.Fprintln(w, "\nFlags:")
		writeFlags(w, c.flags)
	}
	if c.examples != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", indent(strings.TrimSpace(c.examples)))
	}
	fmt.Fprintf(w, "\nGlobal flags (--site, --registry, --repo, --format, …): see '%s --help'.\n", programName)
}

func writeFlags(w io.Writer, flags []cli.Flag) {
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		names := make([]string, 0, 2)
		for _, n := range f.Names() {
			if len(n) == 1 {
				names = append(names, "-"+n)
			} else {
				names = append(names, "--"+n)
			}
		}
		slices.SortFunc(names, func(a, b string) int { return len(a) - len(b) })
		placeholder, usage := unquoteUsage(doc.GetUsage())
		left := strings.Join(names, ", ")
		if doc.TakesValue() {
			left += " " + placeholder
		}
		if value := doc.GetValue(); doc.TakesValue() && !slices.Contains([]string{"", "0", "0s", "[]"}, value) {
			usage += fmt.Sprintf(" (default %s)", value)
		}
		if env := doc.GetEnvVars(); len(env) > 0 {
			usage += fmt.Sprintf(" [$%s]", strings.Join(env, ", $"))
		}
		if len(left) > 24 {
			fmt.Fprintf(w, "  %s\n", left)
			left = ""
		}
		for _, line := range wrap(usage, 52) {
			fmt.Fprintf(w, "  %-24s %s\n", left, line)
			left = ""
		}
	}
}

// unquoteUsage takes the name of a flag's value out of back-quotes.
func unquoteUsage(usage string) (placeholder, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(rest, "`")
	if !ok || !closed {
		return "VALUE", usage
	}
	return name, before + name + after
}

func wrap(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case len(*last)+1+len(word) > width:
			lines = append(lines, word)
		default:
			*last += " " + word
		}
	}
	return lines
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

func capitalise(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
