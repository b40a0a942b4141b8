package evidence

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/meta"
)

// tapParser reads the Test Anything Protocol (versions 12 to 14) line by line:
// "1..N", "ok 1 - name", "not ok 2 - name", "# SKIP why", "# TODO why" and
// "Bail out!". Lines of subtests, which are indented, and all others are the
// program's own business.
type tapParser struct {
	cases    []meta.Case
	numbers  map[int]bool
	planned  int  // -1 before the plan
	repeated bool // there were two plans
	skipAll  string
	bail     string
	broken   string // the first thing that is wrong with the protocol
}

const (
	maxCases   = 100_000
	maxReason  = 4 << 10 // bytes that are kept of why a test failed
	maxName    = 1 << 10 // bytes that are kept of a test's name
	noPlan     = -1
	maxPlanned = 1 << 30
)

var (
	tapPlan      = regexp.MustCompile(`^1\.\.(\d+)\s*(?:#\s*(.*))?$`)
	tapTest      = regexp.MustCompile(`^(not )?ok\b(?:\s+(\d+))?(?:\s*-)?\s*(.*)$`)
	tapDirective = regexp.MustCompile(`(?i)^(skip|todo)\w*:?\s*(.*)$`)
)

func newTAP() *tapParser { return &tapParser{planned: noPlan, numbers: map[int]bool{}} }

func (p *tapParser) line(line string) {
	line = strings.TrimRight(line, " \t\r")
	if m := tapTest.FindStringSubmatch(line); m != nil {
		p.test(m[1] != "", m[2], m[3])
		return
	}
	if m := tapPlan.FindStringSubmatch(line); m != nil {
		p.plan(m[1], m[2])
		return
	}
	if reason, ok := strings.CutPrefix(line, "Bail out!"); ok && p.bail == "" {
		p.bail = "the tests bailed out"
		if reason = shorten(strings.TrimSpace(reason), maxReason); reason != "" {
			p.bail += ": " + reason
		}
		return
	}
	if text, ok := strings.CutPrefix(line, "#"); ok {
		p.diagnostic(strings.TrimPrefix(text, " "))
	}
}

func (p *tapParser) plan(count, directive string) {
	if p.planned != noPlan {
		p.repeated = true
		return
	}
	n, err := strconv.Atoi(count)
	if err != nil || n > maxPlanned {
		p.fault("the plan 1..%s is too long", count)
		return
	}
	p.planned = n
	if m := tapDirective.FindStringSubmatch(directive); n == 0 && m != nil {
		p.skipAll = strings.TrimSpace(m[2])
	}
}

func (p *tapParser) test(failed bool, number, rest string) {
	if len(p.cases) >= maxCases {
		p.fault("more than %d tests", maxCases)
		return
	}
	n := len(p.cases) + 1
	if number != "" {
		given, err := strconv.Atoi(number)
		if err != nil {
			given = 0
		}
		n = given
	}
	if n < 1 || p.numbers[n] {
		p.fault("test number %s is there twice or out of range", number)
	}
	p.numbers[n] = true
	name, directive := splitDirective(rest)
	c := meta.Case{Name: shorten(name, maxName), Outcome: meta.Passed}
	if c.Name == "" {
		c.Name = fmt.Sprintf("test %d", n)
	}
	if failed {
		c.Outcome = meta.Failed
	}
	if m := tapDirective.FindStringSubmatch(directive); m != nil {
		switch reason := strings.TrimSpace(m[2]); {
		case strings.EqualFold(m[1], "skip") && !failed:
			c.Outcome, c.Reason = meta.Skipped, shorten(reason, maxReason)
		case strings.EqualFold(m[1], "todo") && failed:
			c.Expected, c.Reason = true, shorten(reason, maxReason)
		}
	}
	p.cases = append(p.cases, c)
}

// splitDirective parts "name # SKIP why"; a "\#" is no directive.
func splitDirective(rest string) (name, directive string) {
	for from := 0; ; {
		i := strings.Index(rest[from:], "#")
		if i < 0 {
			return unescape(rest), ""
		}
		i += from
		if i > 0 && rest[i-1] == '\\' {
			from = i + 1
			continue
		}
		if directive = strings.TrimSpace(rest[i+1:]); tapDirective.MatchString(directive) {
			return unescape(rest[:i]), directive
		}
		from = i + 1
	}
}

// shorten cuts a text to n bytes, between characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func unescape(name string) string {
	return strings.TrimSpace(strings.NewReplacer(`\#`, "#", `\\`, `\`).Replace(name))
}

// diagnostic keeps what is said after a failed test as the reason.
func (p *tapParser) diagnostic(text string) {
	if len(p.cases) == 0 {
		return
	}
	c := &p.cases[len(p.cases)-1]
	if c.Outcome != meta.Failed || len(c.Reason)+len(text) > maxReason {
		return
	}
	if c.Reason != "" {
		c.Reason += "\n"
	}
	c.Reason += text
}

func (p *tapParser) fault(format string, args ...any) {
	if p.broken == "" {
		p.broken = "broken TAP: " + fmt.Sprintf(format, args...)
	}
}

// failure returns what counts as a failure besides the tests, "" if nothing:
// a program that stops early must not pass for one that is done.
func (p *tapParser) failure() string {
	switch ran := len(p.cases); {
	case p.bail != "":
		return p.bail
	case p.broken != "":
		return p.broken
	case p.repeated:
		return "broken TAP: there are two plans"
	case p.planned == noPlan && ran > 0:
		return "broken TAP: there is no plan (a line 1..N)"
	case p.planned != noPlan && p.planned != ran:
		return fmt.Sprintf("%d tests were planned and %d came to an end", p.planned, ran)
	case slices.Max(append(keys(p.numbers), 0)) > ran:
		return "broken TAP: test numbers are beyond the plan"
	}
	return ""
}

func keys(m map[int]bool) []int {
	out := make([]int, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
