package evidence

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"uenv-ci.dev/internal/meta"
)

type junitSuite struct {
	XMLName   xml.Name    `xml:"testsuite"`
	Name      string      `xml:"name,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Skipped   int         `xml:"skipped,attr"`
	Time      string      `xml:"time,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure,omitempty"`
	Error   *junitMessage `xml:"error,omitempty"`
	Skipped *junitMessage `xml:"skipped,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// encodeJUnit writes a verdict for CI systems, with what ReFrame's own report
// does not tell: skipped tests, waived failures (as skipped), and the runner's
// failure (as an error).
func encodeJUnit(v meta.Verdict) ([]byte, error) {
	s := junitSuite{
		Name: v.Suite, Tests: v.Counts.Total, Failures: v.Counts.Failed, Skipped: v.Counts.Skipped + v.Counts.Waived,
		Time: seconds(v.Seconds), Timestamp: v.When.UTC().Format(time.RFC3339),
	}
	for _, c := range v.Cases {
		s.Cases = append(s.Cases, junitOf(c, v))
	}
	if v.Runner.Failure != "" {
		s.Tests, s.Errors = s.Tests+1, 1
		s.Cases = append(s.Cases, junitCase{
			Class: v.System, Name: "(" + v.Runner.Name + ")", Time: seconds(0), Error: &junitMessage{v.Runner.Failure, ""},
		})
	}
	text, err := xml.MarshalIndent(struct {
		XMLName xml.Name `xml:"testsuites"`
		Suite   junitSuite
	}{Suite: s}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JUnit report: %w", err)
	}
	return fmt.Appendf(nil, "%s%s\n", xml.Header, text), nil
}

func junitOf(c meta.Case, v meta.Verdict) junitCase {
	name := c.Name
	if c.Environment != "" {
		name += " @" + c.Environment
	}
	out := junitCase{Class: strings.Trim(v.System+"."+c.Partition, "."), Name: clean(name), Time: seconds(c.Seconds)}
	first, _, _ := strings.Cut(c.Reason, "\n")
	message := &junitMessage{clean(strings.TrimSpace(c.Phase + " " + first)), clean(c.Reason)}
	// One case decides for itself what the verdict decides for all.
	switch d := meta.Decide([]meta.Case{c}, "", v.When.Time); {
	case d.Counts.Skipped > 0:
		out.Skipped = message
	case d.Counts.Waived > 0:
		message.Message = "waived: " + waivedBy(c) + ": " + message.Message
		out.Skipped = message
	case d.Counts.Failed > 0:
		out.Failure = message
	}
	return out
}

func waivedBy(c meta.Case) string {
	if c.Waiver != nil {
		return clean(c.Waiver.Reason)
	}
	return "expected by the test itself"
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 3, 64) }

// clean drops what XML cannot hold.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r < ' ' && r != '\n' && r != '\t' || r == '\ufffe' || r == '\uffff' {
			return -1
		}
		return r
	}, s)
}
