package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/label"
)

// completeWord is the hidden command by which completion scripts ask for
// candidates: the words so far, the last one unfinished.
const completeWord = "__complete"

var completionScripts = map[string]string{
	"bash": `_uenv_ci() {
  local IFS=$'\n' cur words
  # labels contain ':' and '=', at which bash breaks words: join them again
  _get_comp_words_by_ref -n := cur words 2>/dev/null || { cur=${COMP_WORDS[COMP_CWORD]}; words=("${COMP_WORDS[@]:0:COMP_CWORD+1}"); }
  COMPREPLY=($(uenv-ci __complete "${words[@]:1}" 2>/dev/null))
  [ ${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "$cur"))
  __ltrim_colon_completions "$cur" 2>/dev/null || return 0 # without bash-completion: 127 would drop them all
}
complete -o filenames -F _uenv_ci uenv-ci`,
	"zsh": `#compdef uenv-ci
_uenv_ci() {
  local -a found
  found=("${(@f)$(uenv-ci __complete "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)}")
  [ -n "$found" ] && compadd -- $found || _files
}
compdef _uenv_ci uenv-ci`,
	"fish": `complete -c uenv-ci -f -a '(uenv-ci __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'`,
}

// complete writes the candidates for the last of words.
func complete(ctx context.Context, s streams, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	last, before := words[len(words)-1], words[:len(words)-1]
	if slices.Contains(before, "--") {
		return
	}
	commands := allCommands()
	for _, candidate := range candidates(ctx, s, commands, before, last) {
		if strings.HasPrefix(candidate, last) {
			fmt.Fprintln(s.stdout, candidate)
		}
	}
}

func candidates(ctx context.Context, s streams, commands []*command, before []string, last string) []string {
	line, err := arrange(commands, globalFlags(), before)
	if err != nil && len(before) > 0 { // it may end in a flag that waits for its value
		if line, err = arrange(commands, globalFlags(), append(slices.Clone(before), last)); err == nil {
			return line.valuesOf(before[len(before)-1])
		}
	}
	name, _, hasValue := strings.Cut(last, "=")
	switch {
	case err != nil:
		return nil
	case strings.HasPrefix(last, "-") && hasValue:
		values := line.valuesOf(name)
		for i, value := range values {
			values[i] = name + "=" + value
		}
		return values
	case strings.HasPrefix(last, "-"):
		return flagCandidates(line)
	case line.command == nil:
		return commandNames(commands)
	case len(line.command.sub) > 0:
		return commandNames(line.command.sub)
	case line.command.name == "completion":
		return []string{"bash", "zsh", "fish"}
	case line.command.name == "help":
		return commandNames(commands)
	case line.command.takesLocal && len(line.args) == 0:
		return labelsHere(ctx, s, line)
	}
	return nil
}

func flagCandidates(line arranged) []string {
	flags := globalFlags()
	if line.command != nil {
		flags = append(slices.Clone(line.command.flags), flags...)
	}
	var names []string
	for _, n := range flagNames(flags) {
		names = append(names, "--"+n)
	}
	return append(names, "--help")
}

// valuesOf lists the values of a flag whose usage names them: `a|b`.
func (a arranged) valuesOf(word string) []string {
	name := strings.TrimLeft(word, "-")
	found := lookupFlag(globalFlags(), name)
	if found == nil && a.command != nil {
		found = lookupFlag(a.command.flags, name)
	}
	documented, ok := found.(cli.DocGenerationFlag)
	if !ok {
		return nil
	}
	_, rest, _ := strings.Cut(documented.GetUsage(), "`")
	values, _, _ := strings.Cut(rest, "`")
	if !strings.Contains(values, "|") {
		return nil
	}
	return strings.Split(values, "|")
}

// labelsHere lists the labels of the local repository; any trouble means none.
func labelsHere(ctx context.Context, s streams, line arranged) []string {
	var labels []string
	app := newApp(s, []*command{{name: completeWord, forUsers: true, run: func(ctx context.Context, in *invocation) (result, error) {
		all, err := in.openLocals(ctx)
		if err != nil {
			return nil, err
		}
		defer all.Close()
		for _, local := range all {
			records, err := local.Find(ctx, label.Label{}, false)
			if err != nil {
				return nil, err
			}
			for _, r := range records {
				labels = append(labels, r.Label.String())
			}
		}
		return nil, nil
	}}}, line, func(result, error) {})
	argv := append([]string{programName}, line.global...)
	app.RunContext(ctx, append(argv, completeWord))
	return labels
}
