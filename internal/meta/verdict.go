package meta

import (
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// State is what test results say about an image.
type State string

// The four states. Only pass and waived allow a promotion.
const (
	Pass     State = "pass"     // tests ran and none failed
	Fail     State = "fail"     // a test failed
	Waived   State = "waived"   // every failure is a known one that is waived
	Untested State = "untested" // no test ran
)

// Outcome is how one test ended.
type Outcome string

// The outcomes of a test.
const (
	Passed  Outcome = "pass"
	Failed  Outcome = "fail"
	Skipped Outcome = "skip"
)

// VerdictVersion is the version of the verdict document that we write.
const VerdictVersion = 1

// Verdict is the document verdict.json of a uenv/reframe artifact: how the tests
// of one image on one system ended. State and Counts are what Decide says of
// Cases; readers decide again.
type Verdict struct {
	Version   int     `json:"version"`
	State     State   `json:"verdict"`
	Reason    string  `json:"reason"` // one sentence for people
	Counts    Counts  `json:"tests"`
	When      Time    `json:"when"`            // the end of the run
	Seconds   float64 `json:"seconds"`         // its duration
	System    string  `json:"system"`          // the cluster on which the tests ran
	UArch     string  `json:"uarch,omitempty"` // of the image
	Partition string  `json:"partition,omitempty"`
	Suite     string  `json:"suite,omitempty"` // where the tests came from: a name or revision
	Image     Subject `json:"image"`
	Runner    Runner  `json:"runner"`
	Cases     []Case  `json:"cases"`
}

// Counts are numbers of tests. Total counts each once.
type Counts struct {
	Total   int `json:"total"`
	Passed  int `json:"passed"`
	Failed  int `json:"failed"` // not counting the waived
	Skipped int `json:"skipped"`
	Waived  int `json:"waived"`
}

// Ran returns how many tests came to an end, well or not.
func (c Counts) Ran() int { return c.Passed + c.Failed + c.Waived }

// Subject names the image that was tested.
type Subject struct {
	Label  string        `json:"label,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"` // of the manifest; "" if a loose file was tested
}

// RunnerReFrame is the name of ReFrame as a runner.
const RunnerReFrame = "reframe"

// Runner is the program that ran the tests.
type Runner struct {
	Name    string `json:"name"` // RunnerReFrame, or command for extra/test, or none
	Version string `json:"version,omitempty"`
	Exit    int    `json:"exit"` // its exit status; 128+n if signal n ended it
	// Sandbox tells that it ran in a sandbox, as an image's own tests do.
	Sandbox bool `json:"sandbox,omitempty"`
	// Failure is what counts as a failure although no case tells of it: a crash, a
	// time-out, a broken plan. No waiver covers it.
	Failure string   `json:"failure,omitempty"`
	Notes   []string `json:"notes,omitempty"` // what the runner warned of
}

// Case is one test in one environment.
type Case struct {
	Name        string   `json:"name"`
	System      string   `json:"system,omitempty"` // as the runner calls it
	Partition   string   `json:"partition,omitempty"`
	Environment string   `json:"environment,omitempty"`
	Outcome     Outcome  `json:"outcome"`
	Phase       string   `json:"phase,omitempty"`  // in which it failed
	Reason      string   `json:"reason,omitempty"` // why it failed or was skipped
	Seconds     float64  `json:"seconds,omitempty"`
	Attempts    int      `json:"attempts,omitempty"` // if more than one
	Flaky       bool     `json:"flaky,omitempty"`    // attempts ended differently
	Expected    bool     `json:"expected,omitempty"` // the suite itself declares the failure as known
	Waiver      *Waiver  `json:"waiver,omitempty"`   // covers a failure
	JobID       string   `json:"job,omitempty"`
	Metrics     []Metric `json:"metrics,omitempty"`
}

// Metric is one measured performance value.
type Metric struct {
	Name      string   `json:"name"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit,omitempty"`
	Reference *float64 `json:"reference,omitempty"`
	Lower     *float64 `json:"lower,omitempty"` // relative to Reference, such as -0.1
	Upper     *float64 `json:"upper,omitempty"`
	OK        bool     `json:"ok"`
}

// ParseVerdict reads a verdict document. It checks its form, not whether State
// is what follows from Cases: that is Decide's.
func ParseVerdict(data []byte) (Verdict, error) {
	var v Verdict
	if err := decode(data, maxVerdict, "verdict", VerdictVersion, &v); err != nil {
		return Verdict{}, err
	}
	if err := v.validate(); err != nil {
		return Verdict{}, err
	}
	v.When = At(v.When.Time)
	return v, nil
}

// Encode returns the document's text: the same bytes for the same content.
func (v Verdict) Encode() ([]byte, error) {
	v.Version, v.When = VerdictVersion, At(v.When.Time)
	if v.Cases == nil {
		v.Cases = []Case{}
	}
	if err := v.validate(); err != nil {
		return nil, err
	}
	return encode(v)
}

func (v Verdict) validate() error {
	c := v.Counts
	switch {
	case !slices.Contains([]State{Pass, Fail, Waived, Untested}, v.State):
		return invalid("verdict: unknown state %q", v.State)
	case v.When.IsZero():
		return invalid("verdict: when: missing")
	case v.Seconds < 0:
		return invalid("verdict: seconds: negative")
	case v.Image.Digest != "" && v.Image.Digest.Validate() != nil:
		return invalid("verdict: image.digest: %q is not a digest", v.Image.Digest)
	case min(c.Total, c.Passed, c.Failed, c.Skipped, c.Waived) < 0 || c.Total != c.Ran()+c.Skipped:
		return invalid("verdict: tests: the counts do not add up to total %d", c.Total)
	}
	for i, k := range v.Cases {
		if k.Name == "" || !slices.Contains([]Outcome{Passed, Failed, Skipped}, k.Outcome) {
			return invalid("verdict: cases[%d]: needs a name and the outcome pass, fail or skip", i)
		}
	}
	return nil
}

// Decide decides again from the cases and the runner's failure, at the time t.
func (v Verdict) Decide(t time.Time) Decision { return Decide(v.Cases, v.Runner.Failure, t) }

// Annotations returns what a uenv/reframe artifact with this verdict carries.
func (v Verdict) Annotations() map[string]string {
	a := map[string]string{
		AnnotationVerdict: string(v.State),
		AnnotationTotal:   strconv.Itoa(v.Counts.Total),
		AnnotationPassed:  strconv.Itoa(v.Counts.Passed),
		AnnotationFailed:  strconv.Itoa(v.Counts.Failed),
		AnnotationSkipped: strconv.Itoa(v.Counts.Skipped),
		AnnotationWaived:  strconv.Itoa(v.Counts.Waived),
		AnnotationWhen:    FormatTime(v.When.Time),
	}
	for key, value := range map[string]string{
		AnnotationSystem: v.System, AnnotationPartition: v.Partition, AnnotationSuite: v.Suite,
	} {
		if value != "" {
			a[key] = value
		}
	}
	return a
}

// VerdictOf reads the annotations back, for display: a verdict without cases. It
// returns false if they are not there or do not parse.
func VerdictOf(annotations map[string]string) (Verdict, bool) {
	v := Verdict{
		State:  State(annotations[AnnotationVerdict]),
		System: annotations[AnnotationSystem], Partition: annotations[AnnotationPartition], Suite: annotations[AnnotationSuite],
	}
	when, err := ParseTime(annotations[AnnotationWhen])
	if err != nil {
		return Verdict{}, false
	}
	v.When = At(when)
	for key, n := range map[string]*int{
		AnnotationTotal: &v.Counts.Total, AnnotationPassed: &v.Counts.Passed, AnnotationFailed: &v.Counts.Failed,
		AnnotationSkipped: &v.Counts.Skipped, AnnotationWaived: &v.Counts.Waived,
	} {
		if *n, err = strconv.Atoi(annotations[key]); err != nil {
			return Verdict{}, false
		}
	}
	return v, v.validate() == nil
}
