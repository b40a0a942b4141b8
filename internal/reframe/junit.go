package reframe

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// JUnit is a JUnit report, reduced to what can be believed in it: ReFrame's marks
// neither skipped tests nor retries, so no verdict is taken from it.
type JUnit struct {
	Cases []JUnitCase
}

// JUnitCase is a test case in a JUnit report.
type JUnitCase struct {
	Name    string
	Failure string // "" if it did not fail
}

// Failed returns how many test cases failed.
func (j JUnit) Failed() int {
	n := 0
	for _, c := range j.Cases {
		if c.Failure != "" {
			n++
		}
	}
	return n
}

const maxJUnit = 64 << 20 // bytes

type junitSuite struct {
	Suites []junitSuite `xml:"testsuite"`
	Cases  []struct {
		Name     string         `xml:"name,attr"`
		Failures []junitFailure `xml:"failure"`
		Errors   []junitFailure `xml:"error"`
	} `xml:"testcase"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// ParseJUnit reads a JUnit report: a testsuites or testsuite element. ReFrame
// declares the encoding "utf8", which is no name for it but is understood.
func ParseJUnit(data []byte) (JUnit, error) {
	if len(data) > maxJUnit {
		return JUnit{}, fault.New(fault.Invalid, "JUnit report: larger than %d bytes", maxJUnit)
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(charset) {
		case "utf8", "utf-8", "us-ascii", "ascii":
			return in, nil
		}
		return nil, fmt.Errorf("encoding %q is not supported", charset)
	}
	var root struct {
		XMLName xml.Name
		junitSuite
	}
	if err := d.Decode(&root); err != nil {
		return JUnit{}, fault.New(fault.Invalid, "JUnit report: %w", err)
	}
	if name := root.XMLName.Local; name != "testsuites" && name != "testsuite" {
		return JUnit{}, fault.New(fault.Invalid, "JUnit report: the root is <%s>, not <testsuites>", name)
	}
	var j JUnit
	j.add(root.junitSuite)
	return j, nil
}

func (j *JUnit) add(s junitSuite) {
	for _, c := range s.Cases {
		out := JUnitCase{Name: c.Name}
		for _, f := range append(c.Failures, c.Errors...) {
			if out.Failure = strings.TrimSpace(f.Text); out.Failure == "" {
				out.Failure = strings.TrimSpace(f.Message)
			}
			if out.Failure == "" {
				out.Failure = "failed"
			}
		}
		j.Cases = append(j.Cases, out)
	}
	for _, inner := range s.Suites {
		j.add(inner)
	}
}
