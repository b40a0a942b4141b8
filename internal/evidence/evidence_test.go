package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/reframe"
	"uenv-ci.dev/internal/sandbox"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const imageDigest = "sha256:92058f4fbe658e7d0c02bd4bdfea652efe57685e7efa12353f673a74b9307c1e"

// extra makes an image's extra/ directory; files in bin-like places are
// executable.
func extra(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func options(t *testing.T, extra string) Options {
	t.Helper()
	env, err := meta.ParseEnv([]byte(`{"name": "hello", "mount": "/user-environment", "default-view": "run", "views": {
		"run": {"env": {"values": {"list": {"PATH": [{"op": "append", "value": ["/user-environment/bin"]}]}, "scalar": {"HELLO": "it's me"}}}},
		"develop": {"env": {"values": {"list": {}, "scalar": {"HELLO": "developer"}}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Env: env, Extra: extra, Image: meta.Subject{Label: "hello/1:1@eiger%zen2", Digest: imageDigest}, System: "eiger", UArch: "zen2",
		NoSandbox: true, Scratch: t.TempDir(), Environ: append(os.Environ(), "SECRET_TOKEN=hush", "SLURM_JWT=hush", "SLURM_JOB_ID=7"), Now: func() time.Time { return now },
	}
}

// run runs the tests and reads back what was written.
func run(t *testing.T, o Options) meta.Verdict {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(r.Dir, "verdict.json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := meta.ParseVerdict(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := v.Decide(v.When.Time); d.State != v.State || d.Counts != v.Counts {
		t.Errorf("the verdict says %s %+v, its cases %s %+v", v.State, v.Counts, d.State, d.Counts)
	}
	if v.Image.Digest != imageDigest || v.System != "eiger" || !v.When.Equal(now) {
		t.Errorf("the verdict is about %+v on %s at %s", v.Image, v.System, v.When)
	}
	return v
}

func TestCommand(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		state  meta.State
		reason string
	}{
		"passes":          {"echo ok 1 - a; echo ok 2 - b; echo 1..2", meta.Pass, "2 of 2 tests passed"},
		"fails":           {"echo 1..2; echo ok 1 - a; echo not ok 2 - b; exit 1", meta.Fail, "1 of 2 tests passed, 1 failed (b)"},
		"lies":            {"echo 1..1; echo ok 1 - a; exit 3", meta.Fail, "extra/test exited with status 3 although no test failed; 1 of 1 tests passed"},
		"crashes":         {"echo 1..1; echo ok 1 - a; kill -SEGV $$", meta.Fail, "the tests were ended by signal 11 (segmentation fault); 1 of 1 tests passed"},
		"crashes at once": {"kill -9 $$", meta.Fail, "the tests were ended by signal 9 (killed); no test ran"},
		"dies at once":    {"exit 2", meta.Fail, "extra/test exited with status 2 although no test failed; no test ran"},
		"says nothing":    {"true", meta.Untested, "extra/test ran no test"},
		"skips all":       {"echo 1..0 '# SKIP no GPU'", meta.Untested, "extra/test ran no test: no GPU"},
		"skips each":      {"echo 1..1; echo ok 1 - a '# SKIP no'", meta.Untested, "no test ran: 1 skipped"},
		"stops early":     {"echo 1..2; echo ok 1 - a", meta.Fail, "2 tests were planned and 1 came to an end; 1 of 1 tests passed"},
		"bails out":       {"echo 1..2; echo Bail out! no; exit 0", meta.Fail, "the tests bailed out: no; no test ran"},
		"no program":      {"\x00", meta.Fail, ""},
	} {
		t.Run(name, func(t *testing.T) {
			script := "#!/bin/sh\n" + c.script + "\n"
			if c.script == "\x00" {
				script = "#!/nonexistent/interpreter\n"
			}
			o := options(t, extra(t, map[string]string{"test": script}))
			v := run(t, o)
			if v.State != c.state || c.reason != "" && v.Reason != c.reason || v.Runner.Name != "command" {
				t.Errorf("got %s, %q (%+v)", v.State, v.Reason, v.Runner)
			}
		})
	}
}

func TestErrTellsTheKinds(t *testing.T) {
	for state, kind := range map[meta.State]fault.Kind{meta.Fail: fault.TestsFailed, meta.Untested: fault.Untested} {
		if err := (Result{Verdict: meta.Verdict{State: state}}).Err(); fault.KindOf(err) != kind || err == nil {
			t.Errorf("%s: %v", state, err)
		}
	}
	for _, state := range []meta.State{meta.Pass, meta.Waived} {
		if err := (Result{Verdict: meta.Verdict{State: state}}).Err(); err != nil {
			t.Errorf("%s: %v", state, err)
		}
	}
}

// check is a test of one line per fact: facts are shell conditions.
func check(facts ...string) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\necho 1.." + string(rune('0'+len(facts))) + "\n")
	for i, fact := range facts {
		b.WriteString("if " + fact + "; then echo 'ok - " + string(rune('a'+i)) + "'; else echo 'not ok - " + string(rune('a'+i)) + "'; env; fi\n")
	}
	return b.String()
}

func TestCommandEnvironment(t *testing.T) {
	o := options(t, extra(t, map[string]string{"test": check(
		`[ "$HELLO" = "it's me" ]`,
		`case $PATH in *:/user-environment/bin) true;; *) false;; esac`,
		`[ "$UENV_VIEW" = /user-environment:hello:run ]`,
		`[ "$UENV_CI_MOUNT $UENV_CI_SYSTEM $UENV_CI_UARCH $SLURM_JOB_ID" = "/user-environment eiger zen2 7" ]`,
		`[ -z "$SECRET_TOKEN$SLURM_JWT" ]`,
		`[ "$HOME" != "`+os.Getenv("HOME")+`" ] && touch "$HOME/x" "$TMPDIR/x" here`,
		`[ "$PASSED" = yes ]`,
	)}))
	o.Environ = append(o.Environ, "PASSED=yes")
	o.Pass = []string{"PASSED"}
	if v := run(t, o); v.State != meta.Pass || v.Counts.Passed != 7 {
		log, _ := os.ReadFile(filepath.Join(o.Scratch, "results", "logs", "test.log"))
		t.Errorf("%s: %s\n%s", v.State, v.Reason, log)
	}
}

// inside proves that commands go through it.
type inside struct{ err error }

func (m inside) Command(c proc.Cmd) (proc.Cmd, error) {
	c.Env = append(slices.Clone(c.Env), "INSIDE=yes")
	return c, m.err
}

func (m inside) Sandboxed(spec sandbox.Spec, c proc.Cmd) (proc.Cmd, error) {
	c, err := m.Command(c)
	if err != nil {
		return c, err
	}
	return spec.Command(c)
}

func TestTestsRunWhereTheImageIsMounted(t *testing.T) {
	o := options(t, extra(t, map[string]string{"test": check(`[ "$INSIDE" = yes ]`)}))
	o.Mounted = inside{}
	if v := run(t, o); v.State != meta.Pass {
		t.Errorf("%s: %s", v.State, v.Reason)
	}
	o.Scratch, o.Mounted = t.TempDir(), inside{errors.New("the mount is gone")}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the mount is gone") {
		t.Errorf("got %v", err)
	}
}

func TestCommandIsStoppedInTime(t *testing.T) {
	o := options(t, extra(t, map[string]string{"test": "#!/bin/sh\necho 1..1\necho ok 1 - a\nsleep 600\n"}))
	o.Timeout = 200 * time.Millisecond
	v := run(t, o)
	if v.State != meta.Fail || !strings.HasPrefix(v.Reason, "the tests were stopped after 200ms") {
		t.Errorf("%s: %s", v.State, v.Reason)
	}
}

func TestInterruptionIsNoVerdict(t *testing.T) {
	o := options(t, extra(t, map[string]string{"test": "#!/bin/sh\necho 1..1\necho ok 1 - a\nsleep 600\n"}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Events = func(e event.Event) {
		if e.Kind == event.Progress {
			cancel()
		}
	}
	_, err := Run(ctx, o)
	if fault.KindOf(err) != fault.Interrupted {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Scratch, "results", "verdict.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a verdict was written: %v", err)
	}
}

func TestNoProcessIsLeft(t *testing.T) {
	for name, ending := range map[string]string{"at the end": "exit 0", "when the time is over": "sleep 600"} {
		pids := filepath.Join(t.TempDir(), "pids")
		o := options(t, extra(t, map[string]string{"test": `#!/bin/sh
setsid sh -c 'echo $$ >> "$PIDS"; sleep 600 & echo $! >> "$PIDS"; wait' > /dev/null 2>&1 &
while [ "$(wc -l < "$PIDS")" -lt 2 ]; do sleep 0.05; done
echo 1..1; echo ok 1 - a
` + ending + "\n"}))
		if err := os.WriteFile(pids, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		o.Environ, o.Pass, o.Timeout = append(o.Environ, "PIDS="+pids), []string{"PIDS"}, 2*time.Second
		run(t, o)
		data, err := os.ReadFile(pids)
		if err != nil {
			t.Fatal(err)
		}
		list := strings.Fields(string(data))
		if len(list) != 2 {
			t.Errorf("%s: the test started %d processes", name, len(list))
		}
		for _, pid := range list {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err == nil && !strings.Contains(string(stat), ") Z ") { // a zombie is over, if not buried
				t.Errorf("%s: process %s is left: %s", name, pid, stat)
			}
		}
	}
}

func TestNothingToRun(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		reason string
	}{
		"nothing":      {nil, "no extra/reframe.yaml"},
		"only a wish":  {map[string]string{"reframe.yaml": "a: {features: [x]}\n"}, "neither the site nor the recipe"},
		"no directory": {map[string]string{"-": ""}, "no extra/reframe.yaml"},
	} {
		o := options(t, extra(t, c.files))
		if name == "no directory" {
			o.Extra = ""
		}
		if v := run(t, o); v.State != meta.Untested || !strings.Contains(v.Reason, c.reason) || v.Runner.Name != "none" {
			t.Errorf("%s: %s: %s", name, v.State, v.Reason)
		}
	}
}

func TestBadOptions(t *testing.T) {
	good := extra(t, map[string]string{"test": "#!/bin/sh\n"})
	for name, c := range map[string]struct {
		change func(*Options)
		kind   fault.Kind
	}{
		"no system":      {func(o *Options) { o.System = "" }, fault.Usage},
		"no scratch":     {func(o *Options) { o.Scratch = "" }, fault.Usage},
		"unknown runner": {func(o *Options) { o.Runner = "make" }, fault.Usage},
		"not executable": {func(o *Options) {
			if err := os.Chmod(filepath.Join(good, "test"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, fault.Invalid},
		"used before": {func(o *Options) {
			if err := os.MkdirAll(filepath.Join(o.Scratch, "results", "logs", "x"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, fault.Usage},
		"bad reframe.yaml": {func(o *Options) {
			o.Extra = extra(t, map[string]string{"reframe.yaml": "a: 3\n", "reframe/c.py": ""})
			o.ReFrame = fakeVersion(t)
		}, fault.Invalid},
		"unknown view": {func(o *Options) {
			o.Extra = extra(t, map[string]string{"reframe.yaml": "a: {views: [nope]}\n", "reframe/c.py": ""})
			o.ReFrame = fakeVersion(t)
		}, fault.NotFound},
		"a link out of the image": {func(o *Options) {
			o.Extra = extra(t, map[string]string{"reframe/c.py": ""})
			secret := filepath.Join(t.TempDir(), "secret")
			if err := errors.Join(os.WriteFile(secret, []byte("auths: hush"), 0o600), os.Symlink(secret, filepath.Join(o.Extra, "reframe.yaml"))); err != nil {
				t.Fatal(err)
			}
			o.ReFrame = fakeVersion(t)
		}, fault.Invalid},
		"ReFrame is missing": {func(o *Options) {
			o.Runner, o.ReFrame = ReFrame, filepath.Join(t.TempDir(), "reframe")
		}, fault.Untested},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, good)
			c.change(&o)
			if r, err := Run(t.Context(), o); fault.KindOf(err) != c.kind || err == nil || strings.Contains(err.Error(), "auths") {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

// fakeVersion answers --version as the real one does, for tests that go no
// further.
func fakeVersion(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "reframe")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho 4.9.3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWaivers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "waivers.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("waivers:\n  - {test: 'b*', system: eiger, reason: issue 1, until: 2026-11-21}\n  - {test: c, system: daint, reason: issue 2, until: 2027-01-01}\n")
	waivers, err := LoadWaivers(file)
	if err != nil || len(waivers) != 2 {
		t.Fatalf("got %+v, %v", waivers, err)
	}
	o := options(t, extra(t, map[string]string{"test": "#!/bin/sh\necho 1..2; echo ok 1 - a; echo not ok 2 - b2; exit 1\n"}))
	o.Waivers = waivers
	v := run(t, o)
	if v.State != meta.Waived || v.Counts.Waived != 1 || v.Cases[1].Waiver.Reason != "issue 1" {
		t.Errorf("%s: %s %+v", v.State, v.Reason, v.Cases)
	}
	o.Scratch, o.Now = t.TempDir(), func() time.Time { return now.AddDate(0, 0, 1) }
	if r, err := Run(t.Context(), o); err != nil || r.Verdict.State != meta.Fail {
		t.Errorf("a waiver holds after its end: %+v, %v", r.Verdict, err)
	}
	write("waivers:\n  - {test: a, until: soon}\n  - {tests: a, test: [b], reason: x, until: 2027-01-01}\n")
	var problems fault.Problems
	if _, err := LoadWaivers(file); !errors.As(err, &problems) || len(problems) != 5 || problems[0].Line != 2 {
		t.Errorf("got %v", err)
	}
	write("- a\n")
	if _, err := LoadWaivers(file); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestJUnitReadsBack(t *testing.T) {
	v := meta.Verdict{
		Suite: "s", System: "eiger", When: meta.At(now), Runner: meta.Runner{Name: "command", Failure: "crashed"},
		Cases: []meta.Case{
			{Name: "good <1>", Outcome: meta.Passed}, {Name: "bad", Outcome: meta.Failed, Phase: "sanity", Reason: "x\x01y\nmore", Environment: "e"},
			{Name: "known", Outcome: meta.Failed, Waiver: &meta.Waiver{Test: "known", Reason: "issue 1"}}, {Name: "not here", Outcome: meta.Skipped, Reason: "no GPU"},
		},
	}
	v.Counts = v.Decide(now).Counts
	text, err := encodeJUnit(v)
	if err != nil {
		t.Fatal(err)
	}
	j, err := reframe.ParseJUnit(text)
	if err != nil || len(j.Cases) != 5 || j.Failed() != 2 {
		t.Fatalf("%d cases, %d failed, %v\n%s", len(j.Cases), j.Failed(), err, text)
	}
	if j.Cases[1].Name != "bad @e" || j.Cases[1].Failure != "xy\nmore" || j.Cases[4].Failure != "crashed" {
		t.Errorf("got %+v", j.Cases)
	}
	for _, want := range []string{`tests="5" failures="1" errors="1" skipped="2"`, `message="waived: issue 1: "`, `message="no GPU"`, `name="good &lt;1&gt;"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}

func TestLogKeepsBeginningAndEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := newLog(path)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := range 3000 {
		line := strings.Repeat(string(rune('a'+i%26)), 4095) + "\n"
		total += len(line)
		if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.Write([]byte("the end"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if !strings.HasPrefix(text, "aaaa") || !strings.HasSuffix(text, "\nthe end") || !strings.Contains(text, "bytes are left out here]") {
		t.Errorf("kept %d bytes, ending in %q", len(text), text[len(text)-20:])
	}
	if len(text) < logHead+logTail || len(text) > logHead+logTail+100 {
		t.Errorf("kept %d of %d bytes", len(text), total)
	}
}

func TestShortLogIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := newLog(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", logHead) + strings.Repeat("y", logTail)
	l.Write([]byte(text))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != text {
		t.Errorf("kept %d of %d bytes, %v", len(data), len(text), err)
	}
}

// Of a restricted image the results have all that its tests say, and nobody else does.
func TestWithheld(t *testing.T) {
	o := options(t, extra(t, map[string]string{"test": "#!/bin/sh\necho 1..2; echo 'not ok 1 - a'; echo '# confidential'; echo 'Bail out! confidential'\n"}))
	var told []string
	o.Events, o.Restricted = func(e event.Event) { told = append(told, e.Message) }, true
	v := run(t, o)
	if v.State != meta.Fail || v.Cases[0].Reason != "confidential" || !strings.Contains(v.Runner.Failure, "confidential") {
		t.Fatalf("%+v", v)
	}
	if text := strings.Join(told, "\n"); strings.Contains(text, "confidential") || !strings.Contains(text, "fail: ") {
		t.Errorf("told: %s", text)
	}
	w := Withheld(v)
	data, err := json.Marshal(w)
	if err != nil || strings.Contains(string(data), "confidential") || w.State != meta.Fail || w.Counts != v.Counts || w.Cases[0].Name != "a" {
		t.Errorf("%s %v", data, err)
	}
	if v.Cases[0].Reason != "confidential" {
		t.Error("the verdict itself was changed")
	}
}
