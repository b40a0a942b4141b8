package promote

import (
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/meta"
)

// A result from the future would stay the newest for ever.
func TestResultsFromTheFutureDoNotCount(t *testing.T) {
	s := image(t, layout(t), "future")
	s.tested(func(v *meta.Verdict) { v.When = meta.At(now.AddDate(900, 0, 0)) }, meta.Passed)
	if refused, d := s.refusedBy(); refused != RuleTests || !strings.Contains(reason(d, RuleTests), "claim to be from") {
		t.Errorf("alone: refused by %q: %s", refused, reason(d, RuleTests))
	}
	s.tested(func(v *meta.Verdict) { v.When = meta.At(now.Add(-time.Hour)) }, meta.Failed)
	if refused, _ := s.refusedBy(); refused != RuleTests {
		t.Errorf("before a failure: refused by %q", refused)
	}
}

// The clocks of two machines may differ a little.
func TestASmallSkewOfClocksIsTolerated(t *testing.T) {
	s := image(t, layout(t), "skew").tested(func(v *meta.Verdict) { v.When = meta.At(now.Add(time.Minute)) }, meta.Passed)
	if refused, d := s.refusedBy(); refused != "" {
		t.Errorf("refused by %q: %s", refused, reason(d, RuleTests))
	}
}

// An image that declares all its failures as expected waives itself.
func TestAnImageCannotWaiveItself(t *testing.T) {
	expected := func(v *meta.Verdict) {
		v.Cases[0].Expected = true
		v.State, v.Counts = meta.Waived, meta.Counts{Total: len(v.Cases), Waived: 1, Passed: len(v.Cases) - 1}
	}
	for name, outcomes := range map[string][]meta.Outcome{
		"alone": {meta.Failed}, "beside a pass": {meta.Failed, meta.Passed},
	} {
		s := image(t, layout(t), name).tested(expected, outcomes...)
		if refused, _ := s.refusedBy(); refused != RuleTests {
			t.Errorf("%s: refused by %q", name, refused)
		}
	}
	// A site's ReFrame suite may expect failures, but something must have passed.
	suite := func(v *meta.Verdict) {
		v.Runner.Name = meta.RunnerReFrame
		expected(v)
	}
	s := image(t, layout(t), "reframe").tested(suite, meta.Failed)
	if refused, d := s.refusedBy(); refused != RuleTests || !strings.Contains(reason(d, RuleTests), "no test passed") {
		t.Errorf("reframe alone: refused by %q: %s", refused, reason(d, RuleTests))
	}
	s = image(t, layout(t), "reframe and a pass").tested(suite, meta.Failed, meta.Passed)
	if refused, d := s.refusedBy(); refused != "" {
		t.Errorf("reframe beside a pass: refused by %q: %s", refused, reason(d, RuleTests))
	}
}

// A document that claims a pass without a single test is none.
func TestAClaimedPassWithoutTests(t *testing.T) {
	s := image(t, layout(t), "claim").tested(func(v *meta.Verdict) { v.State, v.Reason = meta.Pass, "all is well" })
	if refused, d := s.refusedBy(); refused != RuleTests || !strings.Contains(reason(d, RuleTests), "no test ran") {
		t.Errorf("refused by %q: %s", refused, reason(d, RuleTests))
	}
}
