package meta

import (
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

const imageDigest = "sha256:92058f4fbe658e7d0c02bd4bdfea652efe57685e7efa12353f673a74b9307c1e"

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.FixedZone("CET", 3600))

func date(t *testing.T, s string) *Date {
	t.Helper()
	d, err := ParseDate(s)
	if err != nil {
		t.Fatal(err)
	}
	return &d
}

func TestDecide(t *testing.T) {
	pass, fail, skip := Case{Name: "p", Outcome: Passed}, Case{Name: "f", Outcome: Failed}, Case{Name: "s", Outcome: Skipped}
	expected := Case{Name: "x", Outcome: Failed, Expected: true}
	waived := Case{Name: "w", Outcome: Failed, Waiver: &Waiver{Test: "w", Reason: "known", Until: date(t, "2026-11-21")}}
	expired := Case{Name: "w", Outcome: Failed, Waiver: &Waiver{Test: "w", Reason: "known", Until: date(t, "2026-11-20")}}
	for name, c := range map[string]struct {
		cases  []Case
		state  State
		reason string
	}{
		"nothing":            {nil, Untested, "no test ran"},
		"only skipped":       {[]Case{skip, skip}, Untested, "no test ran: 2 skipped"},
		"all pass":           {[]Case{pass, pass, skip}, Pass, "2 of 3 tests passed, 1 skipped"},
		"one fails":          {[]Case{pass, fail, waived}, Fail, "1 of 3 tests passed, 1 failed (f), 1 waived"},
		"waived":             {[]Case{pass, waived}, Waived, "1 of 2 tests passed, 1 waived"},
		"expected":           {[]Case{expected}, Waived, "0 of 1 tests passed, 1 waived"},
		"a waiver is over":   {[]Case{pass, expired}, Fail, "1 of 2 tests passed, 1 failed (w)"},
		"unknown outcome":    {[]Case{pass, {Name: "u", Outcome: "great"}}, Fail, "1 of 2 tests passed, 1 failed (u)"},
		"many failures":      {[]Case{fail, fail, fail, fail, fail, fail, fail}, Fail, "0 of 7 tests passed, 7 failed (f, f, f, f, f and 2 more)"},
		"a waiver on a pass": {[]Case{{Name: "p", Outcome: Passed, Waiver: waived.Waiver}}, Pass, "1 of 1 tests passed"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(c.cases, "", noon)
			if d.State != c.state || d.Reason != c.reason || d.Counts.Total != len(c.cases) || d.Counts.Ran()+d.Counts.Skipped != len(c.cases) {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func TestDecideWithAFailureOfTheRunner(t *testing.T) {
	v := verdict()
	v.Runner.Failure = "the runner crashed"
	if d := v.Decide(noon); d.State != Fail || d.Reason != "the runner crashed; 1 of 1 tests passed" || d.Counts.Failed != 0 {
		t.Errorf("got %+v", d)
	}
	if d := Decide(nil, "the runner crashed", noon); d.State != Fail {
		t.Errorf("got %+v", d)
	}
}

func TestWaiverCovers(t *testing.T) {
	for _, c := range []struct {
		waiver       Waiver
		test, system string
		want         bool
	}{
		{Waiver{Test: "Stream*"}, "StreamPass %size=64", "daint", true},
		{Waiver{Test: "Stream*"}, "MyStream", "daint", false},
		{Waiver{Test: "*"}, "a/b [x]", "", true},
		{Waiver{Test: `a[b]\`}, `a[b]\`, "", true},
		{Waiver{Test: "a?c"}, "a/c", "", true},
		{Waiver{Test: "*", System: "eiger"}, "t", "daint", false},
		{Waiver{Test: "*", System: "*"}, "t", "daint", true},
		{Waiver{Test: "t", Until: date(t, "2026-11-21")}, "t", "", true},
		{Waiver{Test: "t", Until: date(t, "2026-11-20")}, "t", "", false},
	} {
		if got := c.waiver.Covers(c.test, c.system, noon); got != c.want {
			t.Errorf("%+v covers %q on %q: %v", c.waiver, c.test, c.system, got)
		}
	}
}

func TestApplyWaiversForgetsTheRecordedOnes(t *testing.T) {
	old := &Waiver{Test: "*", Reason: "old"}
	in := []Case{{Name: "a", Outcome: Failed, Waiver: old}, {Name: "b", Outcome: Failed}, {Name: "b", Outcome: Passed}}
	got := ApplyWaivers(in, []Waiver{{Test: "b", Reason: "new"}}, "daint", noon)
	if got[0].Waiver != nil || got[1].Waiver == nil || got[1].Waiver.Reason != "new" || got[2].Waiver != nil || in[0].Waiver != old {
		t.Errorf("got %+v", got)
	}
}

func verdict() Verdict {
	return Verdict{
		State: Pass, Reason: "1 of 1 tests passed", Counts: Counts{Total: 1, Passed: 1}, When: Time{noon}, Seconds: 1.5,
		System: "daint", UArch: "gh200", Suite: "s", Image: Subject{Label: "a/1:1@daint%gh200", Digest: imageDigest},
		Runner: Runner{Name: "command"}, Cases: []Case{{Name: "a <b>", Outcome: Passed}},
	}
}

func TestVerdictReadsBackEqual(t *testing.T) {
	text, err := verdict().Encode()
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseVerdict(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Encode()
	if err != nil || string(again) != string(text) {
		t.Errorf("got %s\nwant %s", again, text)
	}
	if !strings.Contains(string(text), `"when": "2026-11-21T11:00:00.123456Z"`) || !strings.Contains(string(text), `"a <b>"`) {
		t.Errorf("got %s", text)
	}
	shown, ok := VerdictOf(v.Annotations())
	if !ok || shown.State != Pass || shown.Counts != v.Counts || shown.System != "daint" || shown.When != v.When {
		t.Errorf("annotations read as %+v, %v", shown, ok)
	}
	if _, ok := VerdictOf(map[string]string{}); ok {
		t.Error("a verdict was read from nothing")
	}
}

func TestPromotionAndDeprecationReadBackEqual(t *testing.T) {
	p := Promotion{
		When: Time{noon}, Who: "ci", Image: imageDigest, From: Place{Repository: "build/a/b/c/1", Tag: "42"}, To: Place{Repository: "deploy/a/b/c/1", Tag: "v1"},
		Rules: []RuleResult{{Rule: "tests", Outcome: RuleOverridden, Reason: "no tests", Override: "urgent"}},
	}
	text, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if q, err := ParsePromotion(text); err != nil || q.Rules[0] != p.Rules[0] || q.To.String() != "deploy/a/b/c/1:v1" {
		t.Errorf("got %+v, %v", q, err)
	}
	d := Deprecation{State: Active, When: Time{noon}, Who: "ci", Image: imageDigest, Reason: "old", Until: date(t, "2027-01-31")}
	if text, err = d.Encode(); err != nil {
		t.Fatal(err)
	}
	if q, err := ParseDeprecation(text); err != nil || q.Until.String() != "2027-01-31" || q.Reason != "old" {
		t.Errorf("got %+v, %v", q, err)
	}
}

func TestDocumentsRefuse(t *testing.T) {
	good, err := verdict().Encode()
	if err != nil {
		t.Fatal(err)
	}
	swap := func(old, by string) []byte {
		text := strings.Replace(string(good), old, by, 1)
		if text == string(good) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return []byte(text)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"no version":      {[]byte(`{}`), "version: missing"},
		"newer":           {swap(`"version": 1`, `"version": 2`), "newer"},
		"version zero":    {swap(`"version": 1`, `"version": 0`), "does not exist"},
		"not JSON":        {good[:20], "unexpected end"},
		"state":           {swap(`"verdict": "pass"`, `"verdict": "PASS"`), "unknown state"},
		"counts":          {swap(`"total": 1`, `"total": 2`), "add up"},
		"negative counts": {swap(`"failed": 0`, `"failed": -1`), "add up"},
		"time":            {swap(`2026-11-21T`, `yesterday `), "RFC 3339"},
		"outcome":         {swap(`"outcome": "pass"`, `"outcome": "ok"`), "cases[0]"},
		"digest":          {swap(`sha256:9205`, `sha256:zz`), "not a digest"},
		"not UTF-8":       {swap(`daint`, "\xff"), "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseVerdict(c.data); err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Invalid {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestRecordsRefuse(t *testing.T) {
	place := Place{Repository: "r"}
	for name, p := range map[string]Promotion{
		"nobody":                    {When: Time{noon}, Image: imageDigest, From: place, To: place},
		"no image":                  {When: Time{noon}, Who: "w", From: place, To: place},
		"no place":                  {When: Time{noon}, Who: "w", Image: imageDigest, To: place},
		"override without a reason": {When: Time{noon}, Who: "w", Image: imageDigest, From: place, To: place, Rules: []RuleResult{{Rule: "r", Outcome: RuleOverridden}}},
		"unknown outcome":           {When: Time{noon}, Who: "w", Image: imageDigest, From: place, To: place, Rules: []RuleResult{{Rule: "r", Outcome: "fine"}}},
	} {
		if _, err := p.Encode(); fault.KindOf(err) != fault.Invalid {
			t.Errorf("promotion, %s: %v", name, err)
		}
	}
	for name, d := range map[string]Deprecation{
		"no reason":     {State: Active, When: Time{noon}, Who: "w", Image: imageDigest, Reason: " "},
		"unknown state": {State: "retired", When: Time{noon}, Who: "w", Image: imageDigest, Reason: "r"},
		"no time":       {State: Active, Who: "w", Image: imageDigest, Reason: "r"},
	} {
		if _, err := d.Encode(); fault.KindOf(err) != fault.Invalid {
			t.Errorf("deprecation, %s: %v", name, err)
		}
	}
}

func FuzzParseVerdict(f *testing.F) {
	good, err := verdict().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseVerdict(data)
		if err != nil {
			return
		}
		v.Decide(noon)
		text, err := v.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := ParseVerdict(text); err != nil {
			t.Errorf("what we wrote does not read back: %v\n%s", err, text)
		}
	})
}
