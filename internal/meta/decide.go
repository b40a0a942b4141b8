package meta

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// Waiver says that the failure of some tests on some systems is known and does
// not stop an image, until a date.
type Waiver struct {
	Test   string `json:"test"`             // pattern of the case's name, * and ? as in a shell
	System string `json:"system,omitempty"` // pattern of the system; "" is every system
	Reason string `json:"reason"`
	Until  *Date  `json:"until,omitempty"` // the last day on which it holds; nil has no end
}

// Covers tells whether the waiver holds for a test's failure on a system at t.
func (w Waiver) Covers(test, system string, t time.Time) bool {
	return glob(w.Test, test) && (w.System == "" || glob(w.System, system)) && (w.Until == nil || !w.Until.Over(t))
}

// glob matches a pattern of * and ? over all characters, slashes too. No other
// character is special, so no pattern is malformed.
func glob(pattern, text string) bool {
	plain := strings.NewReplacer("/", "\x00", "[", `\[`, `\`, `\\`)
	ok, _ := path.Match(plain.Replace(pattern), strings.ReplaceAll(text, "/", "\x00"))
	return ok
}

// Decision is what follows from the results of tests.
type Decision struct {
	State  State  `json:"verdict"`
	Reason string `json:"reason"`
	Counts Counts `json:"tests"`
}

// ApplyWaivers returns the cases with the waiver that covers each failure on a
// system at t, and without those recorded before.
func ApplyWaivers(cases []Case, waivers []Waiver, system string, t time.Time) []Case {
	out := make([]Case, len(cases))
	for i, c := range cases {
		c.Waiver = nil
		for _, w := range waivers {
			if c.Outcome == Failed && w.Covers(c.Name, system, t) {
				c.Waiver = &w
				break
			}
		}
		out[i] = c
	}
	return out
}

// Decide says what the results mean at the time t, after which some of their
// waivers may no longer hold. A failure of the runner fails them whatever the
// cases say. Nothing but a test that ran and passed leads to pass.
func Decide(cases []Case, failure string, t time.Time) Decision {
	var d Decision
	var failed []string
	for _, c := range cases {
		d.Counts.Total++
		covered := c.Expected || c.Waiver != nil && (c.Waiver.Until == nil || !c.Waiver.Until.Over(t))
		switch {
		case c.Outcome == Passed:
			d.Counts.Passed++
		case c.Outcome == Skipped:
			d.Counts.Skipped++
		case c.Outcome == Failed && covered:
			d.Counts.Waived++
		default: // what we do not know counts as a failure
			d.Counts.Failed++
			failed = append(failed, c.Name)
		}
	}
	d.State, d.Reason = d.Counts.state(), d.Counts.reason(failed)
	if failure != "" {
		d.State, d.Reason = Fail, failure+"; "+d.Reason
	}
	return d
}

func (c Counts) state() State {
	switch {
	case c.Ran() == 0:
		return Untested
	case c.Failed > 0:
		return Fail
	case c.Waived > 0:
		return Waived
	}
	return Pass
}

const namedFailures = 5 // in the reason; the cases have them all

func (c Counts) reason(failed []string) string {
	switch {
	case c.Total == 0:
		return "no test ran"
	case c.Ran() == 0:
		return fmt.Sprintf("no test ran: %d skipped", c.Skipped)
	}
	parts := []string{fmt.Sprintf("%d of %d tests passed", c.Passed, c.Total)}
	if c.Failed > 0 {
		names := strings.Join(failed[:min(len(failed), namedFailures)], ", ")
		if more := len(failed) - namedFailures; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, fmt.Sprintf("%d failed (%s)", c.Failed, names))
	}
	if c.Waived > 0 {
		parts = append(parts, fmt.Sprintf("%d waived", c.Waived))
	}
	if c.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", c.Skipped))
	}
	return strings.Join(parts, ", ")
}
