package cli

import (
	"context"
	"runtime"
	"runtime/debug"

	"uenv-ci.dev/internal/fault"
)

func versionCommand() *command {
	return &command{
		name: "version", siteless: true, group: "Help", usage: "show the program's version",
		examples: `uenv-ci version --format json`,
		run:      func(context.Context, *invocation) (result, error) { return buildVersion(), nil },
	}
}

type versionResult struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildVersion reads what the Go tool recorded in the program.
func buildVersion() versionResult {
	v := versionResult{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (v versionResult) text(p *printer) {
	text := programName + " " + v.Version
	if v.Revision != "" {
		text += " (" + v.Revision[:min(12, len(v.Revision))]
		if v.Modified {
			text += ", modified"
		}
		text += ")"
	}
	p.printf("%s, %s, %s", text, v.Go, v.Platform)
}

func helpCommand() *command {
	return &command{
		name: "help", siteless: true, group: "Help", usage: "explain a command",
		args: "[COMMAND…]", maxArgs: 2,
		examples: `uenv-ci help promote
uenv-ci help repo verify`,
		run: runHelp,
	}
}

// runHelp is 'uenv-ci help X', the same as 'uenv-ci X --help'.
func runHelp(_ context.Context, in *invocation) (result, error) {
	commands := allCommands()
	line, err := arrange(commands, globalFlags(), in.args)
	if err != nil {
		return nil, err
	}
	showHelp(in.stdout, commands, line)
	return nil, nil
}

func completionCommand() *command {
	return &command{
		name: "completion", siteless: true, group: "Help", usage: "write a completion script for a shell",
		args: "bash|zsh|fish", minArgs: 1, maxArgs: 1,
		details: "The script asks the program itself, so it never needs to be regenerated.",
		examples: `# bash, for this session
source <(uenv-ci completion bash)
# zsh, in .zshrc
source <(uenv-ci completion zsh)
# fish
uenv-ci completion fish > ~/.config/fish/completions/uenv-ci.fish`,
		run: runCompletion,
	}
}

type scriptResult string

func (r scriptResult) text(p *printer) { p.printf("%s", string(r)) }

func runCompletion(_ context.Context, in *invocation) (result, error) {
	script, ok := completionScripts[in.arg(0)]
	if !ok {
		return nil, fault.New(fault.Usage, "no completion for %q: known are bash, zsh and fish", in.arg(0))
	}
	return scriptResult(script), nil
}
