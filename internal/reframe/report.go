// Package reframe drives ReFrame, the regression test framework: it finds the
// program, reads extra/reframe.yaml of an image, writes a configuration where a
// site has none, runs the checks and reads what ReFrame reports.
package reframe

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// Result is how a test case ended, in the words of report format 4.
type Result string

// The results that we know. Any other is a failure.
const (
	Pass     Result = "pass"
	Fail     Result = "fail"
	FailDeps Result = "fail_deps" // a test that it depends on failed
	Skip     Result = "skip"
	Abort    Result = "abort" // ended before it was done
	XFail    Result = "xfail" // failed as the check itself expects
	XPass    Result = "xpass" // passed although the check expects a failure
)

// Report is what a run of ReFrame reports, reduced to one entry a test case.
type Report struct {
	DataVersion string // of the format, such as "4.2"
	Version     string // of ReFrame
	Seconds     float64
	Cases       []Case // in the order of the first run
}

// Case is a test on a partition in an environment.
type Case struct {
	Name      string // with its parameters: "Stream %size=64"
	System    string
	Partition string
	Environ   string
	Result    Result // of the last attempt
	Phase     string // in which it failed
	Reason    string
	Seconds   float64
	Fixture   bool // run for other tests, not a test itself
	Attempts  int
	Flaky     bool // its attempts ended differently
	JobID     string
	Perf      []Perf // sorted by name
}

// Perf is a measured performance value.
type Perf struct {
	Name                    string
	Value                   float64
	Unit                    string
	Reference, Lower, Upper *float64 // nil without a reference; limits are relative to it
	OK                      bool
}

const maxReport = 256 << 20 // bytes

// ParseReport reads a JSON report of data version 3.1 or 4.x (ReFrame 4.6 and
// later). A report that says it has more test cases than it holds is refused.
func ParseReport(data []byte) (Report, error) {
	if len(data) > maxReport {
		return Report{}, fault.New(fault.Invalid, "ReFrame report: larger than %d bytes", maxReport)
	}
	var raw rawReport
	if err := json.Unmarshal(finite(data), &raw); err != nil {
		return Report{}, fault.New(fault.Invalid, "ReFrame report: %w", err)
	}
	r, err := raw.reduce()
	if err != nil {
		return Report{}, fault.New(fault.Invalid, "ReFrame report: %w", err)
	}
	return r, nil
}

type rawReport struct {
	Session struct {
		DataVersion string  `json:"data_version"`
		Version     string  `json:"version"`
		Seconds     float64 `json:"time_elapsed"`
	} `json:"session_info"`
	Runs []struct {
		Number int       `json:"num_cases"`
		Cases  []rawCase `json:"testcases"`
	} `json:"runs"`
}

// rawCase holds the members of all formats; 3.1 has some under other names.
type rawCase struct {
	Name        string           `json:"name"`
	DisplayName string           `json:"display_name"`
	System      string           `json:"system"` // in 3.1 with its partition: "daint:gpu"
	Partition   string           `json:"partition"`
	Environ     string           `json:"environ"`
	Environment string           `json:"environment"` // 3.1
	Result      string           `json:"result"`
	Phase       *string          `json:"fail_phase"`
	Reason      *string          `json:"fail_reason"`
	Seconds     *float64         `json:"time_total"`
	Fixture     bool             `json:"fixture"`
	JobID       any              `json:"jobid"` // null, text, or in 4.0 a number
	PerfValues  map[string][]any `json:"perfvalues"`
	PerfVars    []rawPerf        `json:"perfvars"` // 3.1
}

type rawPerf struct {
	Name      string   `json:"name"`
	Value     *float64 `json:"value"`
	Reference *float64 `json:"reference"`
	Lower     *float64 `json:"thres_lower"`
	Upper     *float64 `json:"thres_upper"`
	Unit      string   `json:"unit"`
}

func (raw rawReport) reduce() (Report, error) {
	s := raw.Session
	r := Report{DataVersion: s.DataVersion, Version: s.Version, Seconds: s.Seconds}
	switch major, _, _ := strings.Cut(s.DataVersion, "."); {
	case s.DataVersion == "":
		return r, fmt.Errorf("session_info.data_version is missing")
	case major != "4" && s.DataVersion != "3.1":
		return r, fmt.Errorf("data version %s is not one that we know (3.1, 4.x)", s.DataVersion)
	}
	index := map[[4]string]int{}
	for n, run := range raw.Runs {
		if len(run.Cases) < run.Number {
			return r, fmt.Errorf("run %d says that it has %d test cases and holds %d", n, run.Number, len(run.Cases))
		}
		for _, c := range run.Cases {
			read := c.read()
			key := [4]string{read.Name, read.System, read.Partition, read.Environ}
			if i, seen := index[key]; seen {
				r.Cases[i] = read.after(r.Cases[i])
				continue
			}
			index[key] = len(r.Cases)
			r.Cases = append(r.Cases, read)
		}
	}
	return r, nil
}

// after returns the case as the attempt that follows an earlier one.
func (c Case) after(earlier Case) Case {
	c.Attempts = earlier.Attempts + 1
	c.Flaky = earlier.Flaky || earlier.Result != c.Result
	return c
}

func (raw rawCase) read() Case {
	c := Case{
		Name:   cmp.Or(raw.DisplayName, raw.Name, "(unnamed)"),
		System: raw.System, Partition: raw.Partition,
		Environ: cmp.Or(raw.Environ, raw.Environment),
		Result:  Result(raw.Result), Phase: deref(raw.Phase), Reason: deref(raw.Reason), Seconds: max(0, deref(raw.Seconds)),
		Fixture: raw.Fixture, Attempts: 1,
	}
	if system, partition, joined := strings.Cut(c.System, ":"); joined && c.Partition == "" {
		c.System, c.Partition = system, partition
	}
	if old, ok := map[Result]Result{"success": Pass, "failure": Fail, "aborted": Abort, "skipped": Skip}[c.Result]; ok {
		c.Result = old // 3.1
	}
	switch id := raw.JobID.(type) {
	case string:
		c.JobID = id
	case float64:
		c.JobID = strconv.FormatFloat(id, 'f', -1, 64)
	}
	c.Perf = raw.perf()
	return c
}

func (raw rawCase) perf() []Perf {
	var perf []Perf
	for _, v := range raw.PerfVars {
		if v.Value != nil {
			p := Perf{Name: v.Name, Value: *v.Value, Unit: v.Unit, Reference: v.Reference, Lower: v.Lower, Upper: v.Upper}
			perf = append(perf, p.judged())
		}
	}
	for _, key := range slices.Sorted(maps.Keys(raw.PerfValues)) {
		if p, ok := readPerf(key, raw.PerfValues[key]); ok {
			perf = append(perf, p)
		}
	}
	return perf
}

// judged returns the value with its verdict, for formats that do not hold it,
// and without what ReFrame writes for "no reference": 0 without limits.
func (p Perf) judged() Perf {
	if p.Reference == nil || *p.Reference == 0 && p.Lower == nil && p.Upper == nil {
		p.Reference, p.OK = nil, true
		return p
	}
	low, high := math.Inf(-1), math.Inf(1)
	if p.Lower != nil {
		low = *p.Reference + math.Abs(*p.Reference)**p.Lower
	}
	if p.Upper != nil {
		high = *p.Reference + math.Abs(*p.Reference)**p.Upper
	}
	p.OK = low <= p.Value && p.Value <= high
	return p
}

// readPerf reads [value, reference, lower, upper, unit, "pass"|"fail"]; the last
// is there since 4.1.
func readPerf(key string, v []any) (Perf, bool) {
	at := func(i int) any {
		if i < len(v) {
			return v[i]
		}
		return nil
	}
	number := func(i int) *float64 {
		if f, ok := at(i).(float64); ok {
			return &f
		}
		return nil
	}
	value := number(0)
	if value == nil {
		return Perf{}, false
	}
	unit, _ := at(4).(string)
	p := Perf{
		Name: key[strings.LastIndex(key, ":")+1:], Value: *value, Unit: unit,
		Reference: number(1), Lower: number(2), Upper: number(3),
	}.judged()
	if word, ok := at(5).(string); ok {
		p.OK = word == "pass"
	}
	return p, true
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// finite replaces by null the numbers that Python writes and JSON does not know:
// NaN, Infinity and -Infinity.
func finite(data []byte) []byte {
	var out []byte
	inText, kept := false, 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case !inText && (c == 'N' || c == 'I' || c == '-'):
			n := literal(data[i:])
			if n > 0 {
				out = append(append(out, data[kept:i]...), "null"...)
				i += n - 1
				kept = i + 1
			}
		}
	}
	if kept == 0 {
		return data
	}
	return append(out, data[kept:]...)
}

func literal(data []byte) int {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if len(data) >= len(word) && string(data[:len(word)]) == word {
			return len(word)
		}
	}
	return 0
}
