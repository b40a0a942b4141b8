package reframe

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// program returns the installed ReFrame or skips the test.
func program(t *testing.T) Program {
	t.Helper()
	p, err := Find(t.Context(), os.Getenv("UENV_CI_REFRAME"), os.Environ())
	if fault.KindOf(err) == fault.NotFound {
		t.Skip("ReFrame not installed: pip install ReFrame-HPC, or name its program in UENV_CI_REFRAME")
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// prepare writes a configuration with one environment and returns a run of
// checks and its environment.
func prepare(t *testing.T, checks string, env Environment, commands ...string) (Run, []string) {
	t.Helper()
	p := program(t)
	dir := t.TempDir()
	c := SiteConfig{System: "x", Partition: "p", Environments: []Environment{env}, Prepare: map[string][]string{env.Name: commands}}
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.py")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	checks, err = filepath.Abs(checks)
	if err != nil {
		t.Fatal(err)
	}
	run := Run{
		Program: p, Dir: dir, Config: config, Checks: []string{checks}, System: "x", Partition: "p", Prefix: filepath.Join(dir, "out"),
		Report: filepath.Join(dir, "report.json"),
	}
	return run, append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "PYTHONDONTWRITEBYTECODE=1", "FLAKY_DIR="+dir)
}

func report(t *testing.T, path string) map[string]Case {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseReport(data)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]Case{}
	for _, c := range r.Cases {
		cases[c.Name] = c
	}
	return cases
}

func TestRealRun(t *testing.T) {
	run, env := prepare(t, "testdata/suite/checks.py", Environment{Name: "e", Features: []string{"c"}, Settings: map[string]any{"cc": "cc"}})
	run.Retries = 1
	var log bytes.Buffer
	var progress []event.Event
	ended, err := Do(t.Context(), run.Command(env), &log, func(e event.Event) {
		if e.Kind == event.Progress {
			progress = append(progress, e)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	cases := report(t, run.Report)
	if c := cases["Flaky"]; c.Result != Pass || !c.Flaky {
		t.Errorf("the flaky test read as %+v", c)
	}
	if cases["Passes"].Result != Pass || cases["WrongOutput"].Result != Fail || cases["Compiles"].Result != Pass {
		t.Errorf("got %+v\n%s", cases, &log)
	}
	if ended.Exit != 1 || ended.Signal || ended.Started <= len(cases) || len(progress) <= len(cases) {
		t.Errorf("ended %+v, %d progress events", ended, len(progress))
	}
}

const envCheck = `
import reframe as rfm
import reframe.utility.sanity as sn

@rfm.simple_test
class SeesEnvironment(rfm.RunOnlyRegressionTest):
    valid_systems = ['+uenv']
    valid_prog_environs = ['+mpi']
    executable = 'printf'
    executable_opts = ['"[%s][%s]\n"', '"$QUOTED"', '"${GONE-unset}"']

    @sanity_function
    def check(self):
        return sn.all([sn.assert_found(r"\[it's \$HOME é]\[unset]", self.stdout),
                       sn.assert_eq(self.current_environ.extras['version'], '2025.0')])

@rfm.simple_test
class NotHere(rfm.RunOnlyRegressionTest):
    valid_systems = ['+gpu']
    valid_prog_environs = ['*']
    executable = 'true'
`

func TestRealRunInAnEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "check.py")
	if err := os.WriteFile(file, []byte(envCheck), 0o600); err != nil {
		t.Fatal(err)
	}
	quoted := "it's $HOME é"
	env := Environment{Name: "n-1_develop", Features: []string{"mpi"}, Settings: map[string]any{"extras": map[string]any{"version": "2025.0"}}}
	run, environ := prepare(t, file, env, Export("QUOTED", &quoted), Export("GONE", nil))
	c := SiteConfig{System: "x", Partition: "p", Features: []string{"uenv"}, Environments: []Environment{env}, Prepare: map[string][]string{
		env.Name: {Export("QUOTED", &quoted), Export("GONE", nil)},
	}}
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(run.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ended, err := Do(t.Context(), run.Command(append(environ, "GONE=here")), &log, nil)
	cases := report(t, run.Report)
	if err != nil || ended.Exit != 0 || cases["SeesEnvironment"].Result != Pass || len(cases) != 1 {
		t.Errorf("%v, ended %+v, cases %+v\n%s", err, ended, cases, &log)
	}
}

func TestRealRunWithoutChecks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "check.py")
	if err := os.WriteFile(file, []byte("import reframe as rfm\nraise ValueError('broken')\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run, env := prepare(t, file, Environment{Name: "e"})
	ended, err := Do(t.Context(), run.Command(env), &bytes.Buffer{}, nil)
	if err != nil || ended.Exit != 0 || ended.Started != 0 || len(ended.Warnings) != 1 || !strings.Contains(ended.Warnings[0], "broken") {
		t.Errorf("%v, ended %+v", err, ended)
	}
	data, err := os.ReadFile(run.Report) // versions before 4.7 write one
	if err == nil {
		if r, err := ParseReport(data); err != nil || len(r.Cases) != 0 {
			t.Errorf("ReFrame reports %+v, %v", r, err)
		}
	}
}

const slowCheck = `
import reframe as rfm

@rfm.simple_test
class Slow(rfm.RunOnlyRegressionTest):
    valid_systems = ['*']
    valid_prog_environs = ['*']
    executable = 'touch "$MARK"; sleep 600'

    @sanity_function
    def check(self):
        return True
`

func TestRealRunEndedReports(t *testing.T) {
	dir := t.TempDir()
	file, mark := filepath.Join(dir, "check.py"), filepath.Join(dir, "mark")
	if err := os.WriteFile(file, []byte(slowCheck), 0o600); err != nil {
		t.Fatal(err)
	}
	run, env := prepare(t, file, Environment{Name: "e"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
			if _, err := os.Stat(mark); err == nil {
				// ReFrame 4 was seen to hang when it is told to end while it is still
				// about to note what it has just started.
				time.Sleep(500 * time.Millisecond)
				cancel()
			}
		}
	}()
	ended, err := Do(ctx, run.Command(append(env, "MARK="+mark)), &bytes.Buffer{}, nil)
	if !errors.Is(err, context.Canceled) || ended.Started != 1 {
		t.Errorf("%v, ended %+v", err, ended)
	}
	if c := report(t, run.Report)["Slow"]; c.Result != Abort && c.Result != Fail { // older versions call it a failure
		t.Errorf("the test read as %+v", c)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if p, err := Find(t.Context(), script("good", "echo 4.9.3"), nil); err != nil || p.Version != "4.9.3" {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, text := range []string{"echo 3.12.0", "echo hello", "exit 3"} {
		if p, err := Find(t.Context(), script("bad", text), nil); err == nil {
			t.Errorf("%s: taken as %+v", text, p)
		}
	}
	t.Setenv("PATH", dir)
	if _, err := Find(t.Context(), "", nil); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestDoReadsOutput(t *testing.T) {
	long := strings.Repeat("x", 2*maxLine)
	output := "[ RUN      ] A /1 @x:p+e\nWARNING: skipped b.py\nERROR: no\r\n[       OK ] (1/2) A /1\n" + long + "\n[     FAIL ] (2/2) B /2\nERROR: cut"
	var events []string
	ended, err := Do(t.Context(), proc.Cmd{Path: "/bin/sh", Args: []string{"-c", `printf '%s' "$0"; exit 5`, output}}, &bytes.Buffer{}, func(e event.Event) {
		if e.Kind == event.Progress {
			events = append(events, "progress")
			if e.Total != 2 {
				t.Errorf("got %+v", e)
			}
			return
		}
		events = append(events, e.Message)
	})
	if err != nil || ended.Exit != 5 || ended.Started != 1 || len(ended.Warnings) != 1 || strings.Join(ended.Errors, "|") != "no|cut" {
		t.Errorf("%v, %+v", err, ended)
	}
	if got := strings.Join(events, "|"); got != "progress|progress|fail B /2" {
		t.Errorf("events %q", got)
	}
	ended, err = Do(t.Context(), proc.Cmd{Path: "/bin/sh", Args: []string{"-c", "kill -9 $$"}}, &bytes.Buffer{}, nil)
	if err != nil || !ended.Signal || ended.Exit != 137 {
		t.Errorf("%v, %+v", err, ended)
	}
}

func TestSiteConfigRefusesNames(t *testing.T) {
	for _, c := range []SiteConfig{{System: "", Partition: "p"}, {System: "a:b", Partition: "p"}, {System: "1", Partition: "p"}, {System: "s", Partition: "p q"}} {
		if _, err := c.Encode(); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
