package reframe

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
)

func load(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Versions without expected failures do not run the two checks that need them.
var recorded = []struct {
	reframe, data string
	xfail         bool
	afterWrong    Result // 4.8 and older call it a plain failure
}{
	{"4.6.3", "3.1", false, Fail},
	{"4.7.4", "4.0", false, Fail},
	{"4.8.4", "4.1", false, Fail},
	{"4.9.3", "4.2", true, FailDeps},
	{"4.10.1", "4.2", true, FailDeps},
}

func TestParseReportOfEveryFormat(t *testing.T) {
	for _, v := range recorded {
		t.Run(v.reframe, func(t *testing.T) {
			r, err := ParseReport(load(t, "report-"+v.reframe+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if r.Version != v.reframe || r.DataVersion != v.data || r.Seconds <= 0 {
				t.Errorf("read as %s, data %s, %g s", r.Version, r.DataVersion, r.Seconds)
			}
			want := map[string]string{
				"Passes": "pass 1", "Compiles": "pass 1", "Measures %size=1": "pass 1", "Measures %size=2": "pass 1", "Skips": "skip 1",
				"TooSlow": "fail 2 performance", "WrongOutput": "fail 2 sanity", "DoesNotCompile": "fail 2 compile_wait",
				"Flaky": "pass 2 flaky", "AfterWrongOutput": string(v.afterWrong) + " 2",
			}
			if v.afterWrong == Fail {
				want["AfterWrongOutput"] += " startup"
			}
			if v.xfail {
				want["KnownFailure"], want["MendedFailure"] = "xfail 1", "fail 2 sanity"
			}
			for _, c := range r.Cases {
				got := fmt.Sprint(c.Result, " ", c.Attempts)
				if c.Phase != "" {
					got += " " + c.Phase
				}
				if c.Flaky {
					got += " flaky"
				}
				if got != want[c.Name] {
					t.Errorf("%s: got %q, want %q", c.Name, got, want[c.Name])
				}
				delete(want, c.Name)
				if c.System != "x" || c.Partition != "p" || c.Environ != "e" || c.Fixture {
					t.Errorf("%s ran on %q:%q in %q, fixture %v", c.Name, c.System, c.Partition, c.Environ, c.Fixture)
				}
				if c.Name == "Passes" && (c.JobID == "" || c.Seconds <= 0) {
					t.Errorf("%s: job %q, %g s", c.Name, c.JobID, c.Seconds)
				}
			}
			if len(want) > 0 {
				t.Errorf("missing: %v", want)
			}
		})
	}
}

func TestParseReportPerformance(t *testing.T) {
	for _, v := range recorded {
		r, err := ParseReport(load(t, "report-"+v.reframe+".json"))
		if err != nil {
			t.Fatal(err)
		}
		by := map[string][]string{}
		for _, c := range r.Cases {
			for _, p := range c.Perf {
				by[c.Name] = append(by[c.Name], fmt.Sprintf("%s %g %s ref %v ok %v", p.Name, p.Value, p.Unit, p.Reference != nil, p.OK))
			}
		}
		if want := []string{"bandwidth 10.5 MB/s ref true ok true", "free 0.5 s ref false ok true"}; !slices.Equal(by["Measures %size=2"], want) {
			t.Errorf("%s: got %q, want %q", v.reframe, by["Measures %size=2"], want)
		}
		if want := []string{"latency 50 us ref true ok false"}; !slices.Equal(by["TooSlow"], want) {
			t.Errorf("%s: got %q, want %q", v.reframe, by["TooSlow"], want)
		}
	}
}

func TestParseReportRefuses(t *testing.T) {
	whole := string(load(t, "report-4.9.3.json"))
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"", "unexpected end"},
		"HTML":              {"<html>", "invalid character"},
		"cut short":         {whole[:len(whole)/2], "unexpected end"},
		"no version":        {`{"runs": []}`, "data_version is missing"},
		"next major":        {strings.Replace(whole, `"4.2"`, `"5.0"`, 1), "5.0"},
		"old":               {strings.Replace(whole, `"4.2"`, `"3.0"`, 1), "3.0"},
		"cases are missing": {strings.Replace(whole, `"num_cases": 6,`, `"num_cases": 7,`, 1), "7 test cases and holds 6"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseReport([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Invalid {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseReportOfNothing(t *testing.T) {
	r, err := ParseReport([]byte(`{"session_info": {"data_version": "4.2", "num_cases": 0}, "runs": [{"num_cases": 0, "testcases": []}]}`))
	if err != nil || len(r.Cases) != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestParseReportKeepsUnknownResults(t *testing.T) {
	text := strings.Replace(string(load(t, "report-4.9.3.json")), `"result": "skip"`, `"result": "splendid"`, 1)
	r, err := ParseReport([]byte(text))
	if err != nil || !slices.ContainsFunc(r.Cases, func(c Case) bool { return c.Result == "splendid" }) {
		t.Errorf("got %v, %v", r.Cases, err)
	}
}

func TestParseReportWithPythonNumbers(t *testing.T) {
	text := `{"session_info": {"data_version": "4.2", "version": "NaN -Infinity \" NaN"}, "runs": [{"num_cases": 1, "testcases": [
		{"name": "A", "result": "pass", "time_total": NaN, "perfvalues": {"s:p:a": [NaN, Infinity, -Infinity, null, "x", "pass"], "s:p:b": [1, NaN, null, null, "x", "pass"]}}]}]}`
	r, err := ParseReport([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if perf := r.Cases[0].Perf; len(perf) != 1 || perf[0].Name != "b" || r.Version != `NaN -Infinity " NaN` {
		t.Errorf("got %+v", r)
	}
}

func TestParseJUnit(t *testing.T) {
	for _, v := range recorded {
		j, err := ParseJUnit(load(t, "junit-"+v.reframe+".xml"))
		if err != nil {
			t.Fatal(err)
		}
		// The first run only, in which the flaky test fails and the skipped one
		// passes: why no verdict is taken from it.
		tests := map[bool]int{false: 10, true: 12}[v.xfail]
		if len(j.Cases) < tests || j.Failed() < 5 {
			t.Errorf("%s: %d cases, %d failed", v.reframe, len(j.Cases), j.Failed())
		}
		for _, c := range j.Cases {
			if strings.HasPrefix(c.Name, "WrongOutput") && !strings.Contains(c.Failure, "no greeting") {
				t.Errorf("%s: %s failed with %q", v.reframe, c.Name, c.Failure)
			}
		}
	}
}

func TestParseJUnitRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":    "",
		"HTML":     "<html><body>login</body></html>",
		"encoding": `<?xml version="1.0" encoding="utf-16"?><testsuites/>`,
		"cut":      `<testsuites><testsuite>`,
		"entity":   `<!DOCTYPE a [<!ENTITY b "c">]><testsuites><testsuite><testcase name="x">&b;</testcase></testsuite></testsuites>`,
	} {
		if j, err := ParseJUnit([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", name, j)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	// Whole reports are too long to be mutated well: a case of each format.
	f.Add([]byte(`{"session_info": {"data_version": "3.1", "version": "4.6.3", "time_elapsed": 1.5}, "runs": [{"num_cases": 1, "testcases": [{"display_name": "A %size=1", "system": "x:p", "environment": "e", "result": "failure", "fail_phase": "sanity", "fail_reason": "r", "jobid": "7", "perfvars": [{"name": "b", "value": 50.0, "reference": 100, "thres_lower": -0.1, "thres_upper": null, "unit": "s"}], "time_total": 0.5}]}]}`))
	f.Add([]byte(`{"session_info": {"data_version": "4.2"}, "runs": [{"num_cases": 1, "testcases": [{"display_name": "A", "system": "x", "partition": "p", "environ": "e", "result": "xfail", "fixture": true, "perfvalues": {"x:p:b": [50.0, 100, -0.1, 0.1, "s", "fail"]}}]}, {"num_cases": 1, "testcases": [{"name": "A", "result": "pass"}]}]}`))
	f.Add([]byte(`{"session_info": {"data_version": "4.0"}, "runs": [{"testcases": [{"jobid": 3, "perfvalues": {"a": [NaN]}}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseReport(data)
		if err != nil {
			return
		}
		for _, c := range r.Cases {
			if c.Name == "" || c.Attempts < 1 || c.Seconds < 0 {
				t.Errorf("read a case as %+v", c)
			}
		}
	})
}

func FuzzParseJUnit(f *testing.F) {
	f.Add(load(f, "junit-4.9.3.xml"))
	f.Add([]byte(`<testsuite><testcase name="a"><error/></testcase><testsuite/></testsuite>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if j, err := ParseJUnit(data); err == nil && j.Failed() > len(j.Cases) {
			t.Errorf("%d of %d failed", j.Failed(), len(j.Cases))
		}
	})
}
