package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
)

func adoptable(t *testing.T, v meta.Verdict) string {
	t.Helper()
	v.When, v.System = meta.At(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)), "demo"
	data, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, verdictFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A verdict that is taken over is decided again: with our waivers, and whatever it says.
func TestAdopt(t *testing.T) {
	image := meta.Subject{Label: "build::a/1:1@demo%x", Digest: digest.FromString("a")}
	waiver := meta.Waiver{Test: "gre*", Reason: "known"}
	cases := []meta.Case{{Name: "good", Outcome: meta.Passed}, {Name: "greeting", Outcome: meta.Failed, JobID: "99"}}
	for name, c := range map[string]struct {
		given   meta.Verdict
		waivers []meta.Waiver
		state   meta.State
		reason  string
	}{
		"failed":            {meta.Verdict{State: meta.Fail, Cases: cases, Counts: meta.Counts{Total: 2, Passed: 1, Failed: 1}}, nil, meta.Fail, "greeting"},
		"waived here":       {meta.Verdict{State: meta.Fail, Cases: cases, Counts: meta.Counts{Total: 2, Passed: 1, Failed: 1}}, []meta.Waiver{waiver}, meta.Waived, "1 waived"},
		"not what it says":  {meta.Verdict{State: meta.Pass, Cases: cases, Counts: meta.Counts{Total: 2, Passed: 2}}, nil, meta.Fail, "greeting"},
		"nothing ran":       {meta.Verdict{State: meta.Untested, Reason: "no ReFrame check fits"}, nil, meta.Untested, "no ReFrame check fits"},
		"a pass of nothing": {meta.Verdict{State: meta.Pass}, nil, meta.Untested, ""},
		"the runner failed": {meta.Verdict{State: meta.Fail, Runner: meta.Runner{Name: "command", Failure: "stopped"}}, []meta.Waiver{waiver}, meta.Fail, "stopped"},
	} {
		dir := adoptable(t, c.given)
		got, err := Adopt(dir, "7", Options{Image: image, System: "demo", Partition: "normal", Waivers: c.waivers})
		if err != nil || got.Verdict.State != c.state || !strings.Contains(got.Verdict.Reason, c.reason) {
			t.Errorf("%s: got %s: %s, %v", name, got.Verdict.State, got.Verdict.Reason, err)
		}
		data, err := os.ReadFile(filepath.Join(dir, verdictFile))
		if err != nil {
			t.Fatal(err)
		}
		written, err := meta.ParseVerdict(data)
		if err != nil || written.State != c.state || written.Image != image || written.Partition != "normal" {
			t.Errorf("%s: wrote %+v, %v", name, written, err)
		}
		if len(written.Cases) == 2 && (written.Cases[0].JobID != "7" || written.Cases[1].JobID != "99") {
			t.Errorf("%s: jobs of the cases: %+v", name, written.Cases)
		}
		if junit, err := os.ReadFile(filepath.Join(dir, "junit.xml")); err != nil || !strings.Contains(string(junit), "<testsuite") {
			t.Errorf("%s: junit.xml: %v", name, err)
		}
	}
	pass := meta.Verdict{State: meta.Pass, Cases: cases[:1], Counts: meta.Counts{Total: 1, Passed: 1}}
	if _, err := Adopt(adoptable(t, pass), "7", Options{Image: image, System: "other"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("of another system: %v", err)
	}
	if _, err := Adopt(t.TempDir(), "7", Options{}); err == nil {
		t.Error("nothing was taken over")
	}
}
