package evidence

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"uenv-ci.dev/internal/meta"
)

// read gives the cases as "outcome name (reason)" and the failure.
func read(text string) ([]string, string, *tapParser) {
	p := newTAP()
	for line := range strings.SplitSeq(text, "\n") {
		p.line(line)
	}
	var got []string
	for _, c := range p.cases {
		s := fmt.Sprint(c.Outcome, " ", c.Name)
		if c.Expected {
			s += " expected"
		}
		if c.Reason != "" {
			s += " (" + c.Reason + ")"
		}
		got = append(got, s)
	}
	return got, p.failure(), p
}

func TestTAP(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		cases   string
		failure string
	}{
		"plain":                 {"TAP version 13\n1..3\nok 1 - a\nnot ok 2 - b\nok 3 c\n", "pass a|fail b|pass c", ""},
		"plan last, no numbers": {"ok\nok - b\n1..2", "pass test 1|pass b", ""},
		"skip and todo":         {"1..4\nok 1 - a # SKIP no GPU\nnot ok 2 - b # TODO issue 3\nok 3 - c # todo\nok 4 - d # skipped: x", "skip a (no GPU)|fail b expected (issue 3)|pass c|skip d (x)", ""},
		"a failed skip fails":   {"1..1\nnot ok 1 - a # SKIP no", "fail a", ""},
		"no directive":          {"1..2\nok 1 - issue #3\nok 2 - a \\# SKIP b", "pass issue #3|pass a # SKIP b", ""},
		"diagnostics":           {"1..2\nok 1 - a\n# fine\nnot ok 2 - b\n# expected 1\n# got 2", "pass a|fail b (expected 1\ngot 2)", ""},
		"program output":        {"1..1\nokay then\nnothing\n    not ok 1 - subtest\nok 1 - a\r", "pass a", ""},
		"all skipped":           {"1..0 # SKIP no MPI here", "", ""},
		"nothing":               {"", "", ""},
		"too few":               {"1..3\nok 1\nok 2", "pass test 1|pass test 2", "3 tests were planned and 2 came to an end"},
		"too many":              {"1..1\nok 1\nok 2", "pass test 1|pass test 2", "1 tests were planned and 2 came to an end"},
		"planned, none ran":     {"1..2", "", "2 tests were planned and 0 came to an end"},
		"no plan":               {"ok 1 - a", "pass a", "broken TAP: there is no plan (a line 1..N)"},
		"two plans":             {"1..1\nok 1 - a\n1..1", "pass a", "broken TAP: there are two plans"},
		"twice":                 {"1..2\nok 1 - a\nok 1 - b", "pass a|pass b", "broken TAP: test number 1 is there twice or out of range"},
		"beyond the plan":       {"1..2\nok 1 - a\nok 7 - b", "pass a|pass b", "broken TAP: test numbers are beyond the plan"},
		"huge number":           {"1..1\nok 99999999999999999999 - a", "pass a", "broken TAP: test number 99999999999999999999 is there twice or out of range"},
		"huge plan":             {"1..99999999999999999999", "", "broken TAP: the plan 1..99999999999999999999 is too long"},
		"bail out":              {"1..3\nok 1 - a\nBail out! no network", "pass a", "the tests bailed out: no network"},
	} {
		t.Run(name, func(t *testing.T) {
			cases, failure, _ := read(c.text)
			if got := strings.Join(cases, "|"); got != c.cases || failure != c.failure {
				t.Errorf("got %q, %q\nwant %q, %q", got, failure, c.cases, c.failure)
			}
		})
	}
}

func TestTAPIsBounded(t *testing.T) {
	p := newTAP()
	p.line("not ok - a")
	for range 10_000 {
		p.line("# " + strings.Repeat("x", 100))
	}
	if n := len(p.cases[0].Reason); n > maxReason || n < maxReason/2 {
		t.Errorf("%d bytes of diagnostics are kept", n)
	}
	p.line("ok - " + strings.Repeat("é", maxName))
	if n := len(p.cases[1].Name); n > maxName+len("…") || !utf8.ValidString(p.cases[1].Name) {
		t.Errorf("%d bytes of a name are kept", n)
	}
	for range maxCases + 5 {
		p.line("ok")
	}
	if len(p.cases) != maxCases || !strings.Contains(p.failure(), "more than") {
		t.Errorf("%d cases, %q", len(p.cases), p.failure())
	}
}

func FuzzTAP(f *testing.F) {
	f.Add("1..2\nok 1 - a # SKIP b\nnot ok 2 # TODO\n# c\nBail out!")
	f.Fuzz(func(t *testing.T, text string) {
		cases, failure, p := read(text)
		d := meta.Decide(p.cases, failure, meta.At(now).Time)
		if len(cases) == 0 && d.State != meta.Untested && d.State != meta.Fail {
			t.Errorf("no tests: %s", d.State)
		}
		if failure != "" && d.State != meta.Fail {
			t.Errorf("%s: %s", failure, d.State)
		}
	})
}
