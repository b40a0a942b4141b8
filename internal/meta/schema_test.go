package meta

import (
	"fmt"
	"testing"

	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
	"uenv-ci.dev/schemas"
)

// agree tells whether a schema and our own reading of a document agree, and on
// what.
func agree(t *testing.T, name string, text []byte, err error, good bool) {
	t.Helper()
	s, compileErr := schema.Compile(schemas.FS, name)
	if compileErr != nil {
		t.Fatal(compileErr)
	}
	node, parseErr := yamlpos.Parse(name, text)
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	problems := s.Validate(node)
	if (len(problems) == 0) != good || (err == nil) != good {
		t.Errorf("%s\nthe schema says %v, we say %v, good is %v", text, problems, err, good)
	}
}

const (
	stamp = `"when": "2026-11-21T11:00:00Z"`
	runOf = `"tests": {"total": 1, "passed": 1, "failed": 0, "skipped": 0, "waived": 0}, "seconds": 1, "system": "daint", "image": {}, "runner": {"name": "command", "exit": 0}`
)

func TestVerdictSchema(t *testing.T) {
	document := func(verdict, cases string) string {
		return fmt.Sprintf(`{"version": 1, "verdict": %q, "reason": "", %s, %s, "cases": [%s]}`, verdict, stamp, runOf, cases)
	}
	for text, good := range map[string]bool{
		document("pass", `{"name": "a", "outcome": "pass"}`):                              true,
		document("pass", `{"name": "a", "outcome": "fail", "more": 1, "expected": true}`): true,
		document("great", `{"name": "a", "outcome": "pass"}`):                             false,
		document("pass", `{"name": "a", "outcome": "xpass"}`):                             false,
		document("pass", `{"name": "", "outcome": "pass"}`):                               false,
		`{"version": 1, "verdict": "pass", "reason": "", "cases": []}`:                    false,
		`{"version": 2}`: false,
	} {
		_, err := ParseVerdict([]byte(text))
		agree(t, "verdict.json", []byte(text), err, good)
	}
	full := verdict()
	three := 3.0
	full.Runner.Notes, full.Runner.Failure, full.Partition = []string{"n"}, "f", "p"
	full.Cases[0].Waiver = &Waiver{Test: "*", System: "daint", Reason: "r", Until: date(t, "2027-01-31")}
	full.Cases[0].Metrics = []Metric{{Name: "m", Value: 1, Reference: &three, Lower: &three, Upper: &three}}
	text, err := full.Encode()
	if err != nil {
		t.Fatal(err)
	}
	agree(t, "verdict.json", text, nil, true)
}

func TestRecordSchemas(t *testing.T) {
	promotion := func(who, rule string) string {
		return fmt.Sprintf(`{"version": 1, %s, "who": %q, "image": %q, "from": {"repository": "a"}, "to": {"repository": "b"}, "rules": [%s]}`, stamp, who, imageDigest, rule)
	}
	for text, good := range map[string]bool{
		promotion("me", `{"rule": "tests", "outcome": "passed", "reason": "r"}`):                      true,
		promotion("me", `{"rule": "tests", "outcome": "overridden", "reason": "r", "override": "o"}`): true,
		promotion("me", `{"rule": "tests", "outcome": "overridden", "reason": "r"}`):                  false,
		promotion("me", `{"rule": "tests", "outcome": "passed", "reason": "r", "override": "o"}`):     false,
		promotion("me", `{"rule": "tests", "outcome": "maybe", "reason": "r"}`):                       false,
		promotion(" ", ``): false,
	} {
		_, err := ParsePromotion([]byte(text))
		agree(t, "promotion.json", []byte(text), err, good)
	}
	deprecation := func(state, reason, until string) string {
		return fmt.Sprintf(`{"version": 1, "state": %q, %s, "who": "me", "image": %q, "reason": %q, "until": %q}`, state, stamp, imageDigest, reason, until)
	}
	for text, good := range map[string]bool{
		deprecation("active", "r", "2027-01-31"):    true,
		deprecation("withdrawn", "r", "2027-01-31"): true,
		deprecation("retired", "r", "2027-01-31"):   false,
		deprecation("active", "", "2027-01-31"):     false,
		deprecation("active", "r", "soon"):          false,
	} {
		_, err := ParseDeprecation([]byte(text))
		agree(t, "deprecation.json", []byte(text), err, good)
	}
}
