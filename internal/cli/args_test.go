package cli

import (
	"slices"
	"testing"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/fault"
)

func testCommands() []*command {
	flags := []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}}, &cli.StringFlag{Name: "out", Aliases: []string{"o"}}}
	return []*command{
		{name: "pull", flags: flags},
		{name: "promote", flags: flags},
		{name: "ci", sub: []*command{{name: "plan", flags: flags}}},
	}
}

func TestArrange(t *testing.T) {
	for _, c := range []struct {
		in, argv, tail []string
	}{
		{[]string{"pull", "a/1", "--force"}, []string{"uenv-ci", "pull", "--force", "--", "a/1"}, nil},
		{[]string{"pull", "a/1", "--out", "x", "--format", "json"}, []string{"uenv-ci", "--format", "json", "pull", "--out", "x", "--", "a/1"}, nil},
		{[]string{"--quiet", "pull", "-o=x", "a"}, []string{"uenv-ci", "--quiet", "pull", "-o=x", "--", "a"}, nil},
		{[]string{"ci", "--force", "plan", "-f"}, nil, nil},
		{[]string{"ci", "plan", "-f", "b"}, []string{"uenv-ci", "ci", "plan", "-f", "--", "b"}, nil},
		{[]string{"pull", "a", "--", "--force", "x"}, []string{"uenv-ci", "pull", "--", "a"}, []string{"--force", "x"}},
		{[]string{"pull", "-"}, []string{"uenv-ci", "pull", "--", "-"}, nil},
	} {
		line, err := arrange(testCommands(), globalFlags(), c.in)
		if c.argv == nil {
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("%q: got %v, want a usage error", c.in, err)
			}
			continue
		}
		if err != nil || !slices.Equal(line.argv("uenv-ci"), c.argv) || !slices.Equal(line.tail, c.tail) {
			t.Errorf("%q: got %q, tail %q, %v", c.in, line.argv("uenv-ci"), line.tail, err)
		}
	}
}

func TestArrangeExplainsMistakes(t *testing.T) {
	for _, c := range []struct {
		in         []string
		text, hint string
	}{
		{[]string{"pul"}, `unknown command "pul"`, "did you mean 'pull'?"},
		{[]string{"ci", "plam"}, `unknown command "plam"`, "did you mean 'ci plan'?"},
		{[]string{"pull", "--forze"}, "unknown flag --forze", "did you mean --force?"},
		{[]string{"pull", "--registri", "x"}, "unknown flag --registri", "did you mean --registry?"},
		{[]string{"pull", "--out"}, "flag --out needs a value", "see 'uenv-ci pull --help'"},
		{[]string{"pull", "--out", "--", "x"}, "flag --out needs a value", "see 'uenv-ci pull --help'"},
		{[]string{"zzzzzz"}, `unknown command "zzzzzz"`, "see 'uenv-ci --help'"},
	} {
		_, err := arrange(testCommands(), globalFlags(), c.in)
		if err == nil || err.Error() != c.text || fault.HintOf(err) != c.hint || fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: got %v (%s)", c.in, err, fault.HintOf(err))
		}
	}
}

func TestHelpAnywhere(t *testing.T) {
	for _, in := range [][]string{{"--help"}, {"pull", "-h"}, {"pull", "x", "--help"}, {"ci", "plan", "--help"}} {
		if line, err := arrange(testCommands(), globalFlags(), in); err != nil || !line.help {
			t.Errorf("%q: got %+v, %v", in, line, err)
		}
	}
}

func TestEveryKindHasAnExitCode(t *testing.T) {
	seen := map[int]fault.Kind{}
	for kind := fault.Failure; kind <= fault.Interrupted; kind++ {
		code, ok := exitCodes[kind]
		if !ok {
			t.Errorf("kind %d has no exit code", kind)
		}
		if other, taken := seen[code]; taken {
			t.Errorf("kinds %d and %d share exit code %d", kind, other, code)
		}
		seen[code] = kind
	}
}

func TestTame(t *testing.T) {
	for in, want := range map[string]string{
		"plain ✓ text\tand\nlines": "plain ✓ text\tand\nlines",
		"\x1b[31mred\x1b[0m":       "\x1b[31mred\x1b[0m",
		"\x1b]0;title\x07\x1b[2K":  `\x1b]0;title\x07\x1b[2K`,
		"a\rb\u009bc":              `a\x0db\x9bc`,
	} {
		if got := tame(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
