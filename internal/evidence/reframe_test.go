package evidence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/reframe"
)

// withReFrame names the installed ReFrame or skips the test.
func withReFrame(t *testing.T, o Options) Options {
	t.Helper()
	p, err := reframe.Find(t.Context(), os.Getenv("UENV_CI_REFRAME"), os.Environ())
	if fault.KindOf(err) == fault.NotFound {
		t.Skip("ReFrame not installed: pip install ReFrame-HPC, or name its program in UENV_CI_REFRAME")
	}
	if err != nil {
		t.Fatal(err)
	}
	o.ReFrame = p.Path
	return o
}

const header = `
import reframe as rfm
import reframe.utility.sanity as sn

class Base(rfm.RunOnlyRegressionTest):
    valid_systems = ['+uenv']
    valid_prog_environs = ['*']

    @sanity_function
    def check(self):
        return sn.assert_found('good', self.stdout, msg='not good')
`

const mixed = header + `
@rfm.simple_test
class InView(Base):
    executable = '[ "$HELLO" = "$WANTED" ] && echo good $INSIDE'

    @run_before('run')
    def wanted(self):
        run = self.current_environ.name == 'hello_run'
        self.env_vars = {'WANTED': '"it\'s me"' if run else 'developer'}

@rfm.simple_test
class OnlyDevelop(Base):
    valid_prog_environs = ['+compilers']
    executable = 'echo bad; echo details >&2'

@rfm.simple_test
class Skipped(Base):
    executable = 'true'

    @run_after('setup')
    def leave(self):
        self.skip('no GPU')

@rfm.simple_test
class Elsewhere(Base):
    valid_systems = ['+gpu']
    executable = 'false'
`

const environments = "run:\n  features: [serial]\n  views: [run]\ndevelop:\n  features: [compilers]\n  views: [develop]\n  activation: ['export ACTIVATED=yes']\n"

func names(v meta.Verdict) []string {
	var got []string
	for _, c := range v.Cases {
		got = append(got, c.Name+"@"+c.Environment+" "+string(c.Outcome))
	}
	slices.Sort(got)
	return got
}

func TestReFrameWithTheRecipesChecks(t *testing.T) {
	o := withReFrame(t, options(t, extra(t, map[string]string{"reframe.yaml": environments, "reframe/deep/checks.py": mixed, "test": "#!/bin/sh\nexit 1\n"})))
	o.Mounted = inside{}
	v := run(t, o)
	want := []string{"InView@hello_develop pass", "InView@hello_run pass", "OnlyDevelop@hello_develop fail", "Skipped@hello_develop skip", "Skipped@hello_run skip"}
	if got := names(v); !slices.Equal(got, want) {
		log, _ := os.ReadFile(filepath.Join(o.Scratch, "results", "logs", "reframe.log"))
		t.Fatalf("got %q\nwant %q\n%s", got, want, log)
	}
	if v.State != meta.Fail || v.Runner.Name != "reframe" || v.Runner.Version == "" || v.Runner.Exit != 1 || v.Suite != "recipe" {
		t.Errorf("%s: %s %+v", v.State, v.Reason, v.Runner)
	}
	i := slices.IndexFunc(v.Cases, func(c meta.Case) bool { return c.Name == "OnlyDevelop" })
	if c := v.Cases[i]; c.Phase != "sanity" || !strings.Contains(c.Reason, "not good") || c.Partition != "local" {
		t.Errorf("got %+v", c)
	}
	logs := os.DirFS(filepath.Join(o.Scratch, "results", "logs"))
	stderr, err := fs.ReadFile(logs, "eiger/local/hello_develop/OnlyDevelop/rfm_job.err")
	if err != nil || strings.TrimSpace(string(stderr)) != "details" {
		t.Errorf("output of the failed test: %q, %v", stderr, err)
	}
	stdout, err := fs.ReadFile(logs, "reframe.log")
	if err != nil || !strings.Contains(string(stdout), "OnlyDevelop") {
		t.Errorf("log: %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Scratch, "results", "report.json")); err != nil {
		t.Error(err)
	}
	if home, _ := os.ReadDir(filepath.Join(o.Scratch, "work")); len(home) == 0 {
		t.Error("ReFrame worked elsewhere")
	}
}

func TestReFrameWithoutReframeYAMLTakesTheDefaultView(t *testing.T) {
	o := withReFrame(t, options(t, extra(t, map[string]string{"reframe/c.py": header + `
@rfm.simple_test
class Works(Base):
    executable = '[ "$HELLO" = "it\'s me" ] && echo good'
`})))
	if v := run(t, o); v.State != meta.Pass || v.Counts.Total != 1 {
		t.Errorf("%s: %s", v.State, v.Reason)
	}
}

func TestReFrameRetriesAreFlaky(t *testing.T) {
	o := withReFrame(t, options(t, extra(t, map[string]string{"reframe/c.py": header + `
@rfm.simple_test
class Flaky(Base):
    executable = 'if [ -e "$TMPDIR/again" ]; then echo good; else touch "$TMPDIR/again"; fi'
`})))
	o.Retries = 1
	if v := run(t, o); v.State != meta.Pass || !v.Cases[0].Flaky || v.Cases[0].Attempts != 2 {
		t.Errorf("%s: %s %+v", v.State, v.Reason, v.Cases)
	}
}

func TestReFrameWithoutAnyTest(t *testing.T) {
	for name, c := range map[string]struct{ checks, reason string }{
		"nothing selected": {header + "@rfm.simple_test\nclass E(Base):\n    valid_systems = ['+gpu']\n    executable = 'true'\n", "found no check for this image"},
		"all skipped":      {header + "@rfm.simple_test\nclass S(Base):\n    executable = 'true'\n    @run_after('setup')\n    def s(self):\n        self.skip('no')\n", "no test ran: 1 skipped"},
		"raises":           {"import reframe\nraise ValueError('broken here')\n", "broken here"},
		"syntax error":     {"import reframe\nx = (\n", "never closed"},
	} {
		t.Run(name, func(t *testing.T) {
			o := withReFrame(t, options(t, extra(t, map[string]string{"reframe/c.py": c.checks})))
			if v := run(t, o); v.State != meta.Untested || !strings.Contains(v.Reason, c.reason) {
				t.Errorf("%s: %s", v.State, v.Reason)
			}
		})
	}
}

// siteConfig is a site's own configuration, which the image's environment is not
// part of; the mode chooses the checks.
const siteConfig = `
import os
site_configuration = {
    'systems': [{'name': 'eiger', 'hostnames': ['.*'], 'modules_system': 'nomod', 'partitions': [
        {'name': 'cn', 'scheduler': 'local', 'launcher': 'local', 'environs': ['image'], 'features': ['uenv'], 'max_jobs': 1}]}],
    'environments': [{'name': 'image', 'target_systems': ['*']}],
    'modes': [{'name': 'deployment', 'options': ['-c checks', '--report-file=$PWD/latest.json']}],
}
`

const siteCheck = header + `
import os

@rfm.simple_test
class Site(Base):
    executable = '[ "$SITE_SAYS" = hello ] && [ -f "${CSCS_RFM_UENV%@*}" ] && [ "${CSCS_RFM_UENV#*@}" = /user-environment ] && [ -f "$(dirname ${CSCS_RFM_UENV%@*})/meta/extra/reframe.yaml" ] && echo good'
`

func TestReFrameWithTheSitesConfiguration(t *testing.T) {
	suite := extra(t, map[string]string{"config/site.py": siteConfig, "checks/c.py": siteCheck})
	o := withReFrame(t, options(t, extra(t, map[string]string{"reframe.yaml": environments})))
	o.ImageFile = filepath.Join(t.TempDir(), "image.squashfs")
	if err := os.WriteFile(o.ImageFile, []byte("hsqs"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Suite = Suite{Name: "site-suite@42", Dir: suite, Config: "config/site.py", Mode: "deployment", Env: map[string]string{"SITE_SAYS": "hello"}}
	v := run(t, o)
	if v.State != meta.Pass || v.Suite != "site-suite@42" || v.Counts.Total != 1 || v.Cases[0].Partition != "cn" {
		log, _ := os.ReadFile(filepath.Join(o.Scratch, "results", "logs", "reframe.log"))
		t.Errorf("%s: %s\n%s", v.State, v.Reason, log)
	}
	entries, err := os.ReadDir(suite)
	if err != nil || len(entries) != 2 {
		t.Errorf("the suite's directory was written to: %v, %v", entries, err)
	}
}

func TestReFrameWithASuiteWithoutConfiguration(t *testing.T) {
	suite := extra(t, map[string]string{"checks/c.py": mixed, "other/broken.py": "raise ValueError('not asked for')\n"})
	o := withReFrame(t, options(t, extra(t, map[string]string{"reframe.yaml": "develop: {features: [compilers], views: [develop]}\n"})))
	o.Suite = Suite{Dir: suite, Checks: []string{"checks"}, Features: []string{"gpu"}}
	o.Partition = "a100"
	v := run(t, o)
	want := []string{"Elsewhere@hello_develop fail", "InView@hello_develop pass", "OnlyDevelop@hello_develop fail", "Skipped@hello_develop skip"}
	if got := names(v); !slices.Equal(got, want) || v.Partition != "a100" || v.Suite != filepath.Base(suite) || v.Cases[0].Partition != "a100" {
		t.Errorf("got %q on %s, suite %s", got, v.Partition, v.Suite)
	}
}

// killing makes a command run below one that dies at once when it is ended, as
// the sandbox does.
type killing struct{ inside }

func (killing) Command(c proc.Cmd) (proc.Cmd, error) {
	c.Args = append([]string{"-c", `setsid "$0" "$@" & wait $!`, c.Path}, c.Args...)
	c.Path = "/bin/sh"
	return c, nil
}

func TestReFrameIsStoppedInTime(t *testing.T) {
	for name, mounted := range map[string]Mounted{"as it is": nil, "below a sandbox": killing{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := withReFrame(t, options(t, extra(t, map[string]string{"reframe/c.py": header + "@rfm.simple_test\nclass Slow(Base):\n    executable = 'sleep 600'\n"})))
			o.Timeout, o.Mounted = 10*time.Second, mounted // time enough for ReFrame to begin
			v := run(t, o)
			if v.State != meta.Fail || !strings.HasPrefix(v.Reason, "the tests were stopped after 10s") {
				t.Errorf("%s: %s", v.State, v.Reason)
			}
			if len(v.Cases) != 1 || v.Cases[0].Outcome != meta.Failed {
				t.Errorf("ReFrame did not report: %+v", v.Cases)
			}
		})
	}
}

// What ReFrame does in these is recorded in internal/reframe/testdata: exit
// statuses, output lines and reports.
func TestHowReFrameEnds(t *testing.T) {
	passed := `{"session_info": {"data_version": "4.2"}, "runs": [{"num_cases": 1, "testcases": [{"name": "A", "result": "pass"}]}]}`
	for name, c := range map[string]struct {
		report string // "" for none
		ended  reframe.Ended
		runErr error
		state  meta.State
		reason string
	}{
		"passes":                   {passed, reframe.Ended{Started: 1}, nil, meta.Pass, "1 of 1"},
		"no report, nothing ran":   {"", reframe.Ended{}, nil, meta.Untested, "found no check"},
		"no report, bad start":     {"", reframe.Ended{Exit: 1, Errors: []string{"bad config"}}, nil, meta.Untested, "ran no test: bad config"},
		"no report, killed early":  {"", reframe.Ended{Exit: 137, Signal: true}, nil, meta.Untested, "status 137"},
		"no report, crashed late":  {"", reframe.Ended{Exit: 1, Started: 3}, nil, meta.Fail, "started 3 tests, exited with status 1 and wrote no report"},
		"killed late":              {"", reframe.Ended{Exit: 137, Signal: true, Started: 3}, nil, meta.Fail, "signal 9"},
		"claims 0 tests":           {`{"session_info": {"data_version": "4.2", "num_cases": 0}, "runs": []}`, reframe.Ended{}, nil, meta.Untested, "found no check"},
		"claims 0 tests, ran some": {`{"session_info": {"data_version": "4.2"}, "runs": []}`, reframe.Ended{Started: 2, Exit: 1}, nil, meta.Fail, "status 1 although no test failed"},
		"passes but exits with 1":  {passed, reframe.Ended{Started: 1, Exit: 1}, nil, meta.Fail, "status 1 although no test failed"},
		"report is cut":            {passed[:60], reframe.Ended{Started: 1}, nil, meta.Fail, "unexpected end"},
		"report of another age":    {`{"session_info": {"data_version": "9.0"}}`, reframe.Ended{}, nil, meta.Untested, "data version 9.0"},
		"time is over":             {passed, reframe.Ended{Started: 2}, errTimeout, meta.Fail, "were stopped after"},
		"unknown result":           {strings.Replace(passed, "pass", "great", 1), reframe.Ended{Started: 1}, nil, meta.Fail, "1 failed (A)"},
		"expected failure":         {strings.Replace(passed, "pass", "xfail", 1), reframe.Ended{Started: 1}, nil, meta.Waived, "1 waived"},
		"unexpected pass":          {strings.Replace(passed, "pass", "xpass", 1), reframe.Ended{Started: 1, Exit: 1}, nil, meta.Fail, "1 failed"},
		"aborted":                  {strings.Replace(passed, "pass", "abort", 1), reframe.Ended{Started: 1, Exit: 1}, nil, meta.Fail, "1 failed"},
		"only a fixture passed":    {strings.Replace(passed, `"name"`, `"fixture": true, "name"`, 1), reframe.Ended{Started: 1}, nil, meta.Untested, "found no check"},
		"cannot be started":        {"", reframe.Ended{}, errors.New("start reframe: no such file"), meta.Fail, "start reframe"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := newLayout(t.TempDir())
			if err == nil && c.report != "" {
				err = os.WriteFile(filepath.Join(l.work, reportFile), []byte(c.report), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			o := Options{System: "eiger", Timeout: time.Hour, Now: func() time.Time { return now }}
			out, err := o.reported(l, c.ended, c.runErr)
			if err != nil {
				t.Fatal(err)
			}
			v := o.verdict(out, now)
			if v.State != c.state || !strings.Contains(v.Reason, c.reason) {
				t.Errorf("got %s: %s", v.State, v.Reason)
			}
		})
	}
}

func TestOutputsFollowNoLinks(t *testing.T) {
	l, err := newLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	stage := filepath.Join(l.work, "out", "stage", "a")
	if err := os.MkdirAll(stage, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(stage, "rfm_job.out")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(secret), filepath.Join(l.work, "out", "stage", "b")); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", maxOutput) + "the end"
	for name, text := range map[string]string{"rfm_job.err": big, "core": "core", "rfm_build.sh": "#!/bin/sh"} {
		if err := os.WriteFile(filepath.Join(stage, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.keepOutputs(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(l.logs, "a"))
	if err != nil || len(entries) != 2 {
		t.Fatalf("kept %v, %v", entries, err)
	}
	data, err := os.ReadFile(filepath.Join(l.logs, "a", "rfm_job.err"))
	if err != nil || len(data) != maxOutput || !strings.HasSuffix(string(data), "the end") {
		t.Errorf("kept %d bytes, %v", len(data), err)
	}
	if _, err := os.Stat(filepath.Join(l.logs, "b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link was followed: %v", err)
	}
}
