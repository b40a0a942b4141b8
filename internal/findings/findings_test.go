package findings_test

import (
	"encoding/json"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/findings"
)

var problems = fault.Problems{
	{File: "./recipes/a b/config.yaml", Line: 3, Column: 7, Message: "unknown key 'nmae'", Hint: "did you mean 'name'?"},
	{File: "recipes/c/config.yaml", Message: "the file is missing"},
	{File: "recipes/c/extra.yaml", Line: 2, Column: 1, Message: "'modules' has no effect", Severity: fault.Warning, Rule: "ignored-key"},
	{File: "recipes/c/extra.yaml", Line: 9, Column: 1, Message: "'modules' has no effect", Severity: fault.Warning, Rule: "ignored-key"},
}

// at returns the value at a path of keys and indices.
func at(t *testing.T, data []byte, path ...any) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	for _, step := range path {
		switch s := step.(type) {
		case string:
			value = value.(map[string]any)[s]
		case int:
			value = value.([]any)[s]
		}
	}
	return value
}

func TestSARIF(t *testing.T) {
	data, err := findings.SARIF(problems, "1.2")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path []any
		want any
	}{
		{[]any{"version"}, "2.1.0"},
		{[]any{"runs", 0, "tool", "driver", "version"}, "1.2"},
		{[]any{"runs", 0, "tool", "driver", "rules", 1, "id"}, "ignored-key"},
		{[]any{"runs", 0, "results", 0, "level"}, "error"},
		{[]any{"runs", 0, "results", 0, "message", "text"}, "unknown key 'nmae' (did you mean 'name'?)"},
		{[]any{"runs", 0, "results", 0, "locations", 0, "physicalLocation", "artifactLocation", "uri"}, "recipes/a%20b/config.yaml"},
		{[]any{"runs", 0, "results", 0, "locations", 0, "physicalLocation", "region", "startLine"}, 3.0},
		{[]any{"runs", 0, "results", 0, "locations", 0, "physicalLocation", "region", "startColumn"}, 7.0},
		{[]any{"runs", 0, "results", 1, "ruleId"}, "invalid"},
		{[]any{"runs", 0, "results", 1, "locations", 0, "physicalLocation", "region"}, nil},
		{[]any{"runs", 0, "results", 2, "level"}, "warning"},
		{[]any{"runs", 0, "results", 2, "ruleId"}, "ignored-key"},
	} {
		if got := at(t, data, c.path...); got != c.want {
			t.Errorf("%v: got %v, want %v", c.path, got, c.want)
		}
	}
	if rules := at(t, data, "runs", 0, "tool", "driver", "rules").([]any); len(rules) != 2 {
		t.Errorf("rules %v", rules)
	}
}

func TestCodeQuality(t *testing.T) {
	data, err := findings.CodeQuality(problems)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path []any
		want any
	}{
		{[]any{0, "description"}, "unknown key 'nmae' (did you mean 'name'?)"},
		{[]any{0, "severity"}, "major"},
		{[]any{0, "location", "path"}, "recipes/a b/config.yaml"},
		{[]any{0, "location", "lines", "begin"}, 3.0},
		{[]any{1, "location", "lines", "begin"}, 1.0},
		{[]any{2, "check_name"}, "ignored-key"},
		{[]any{2, "severity"}, "minor"},
	} {
		if got := at(t, data, c.path...); got != c.want {
			t.Errorf("%v: got %v, want %v", c.path, got, c.want)
		}
	}
	seen := map[any]bool{}
	for i := range problems {
		seen[at(t, data, i, "fingerprint")] = true
	}
	if len(seen) != len(problems) {
		t.Error("two problems have one fingerprint")
	}
	moved := append(fault.Problems{}, problems...)
	moved[0].Line = 30
	again, err := findings.CodeQuality(moved)
	if err != nil || at(t, again, 0, "fingerprint") != at(t, data, 0, "fingerprint") {
		t.Errorf("the fingerprint depends on the line: %v", err)
	}
}

func TestNothingWrong(t *testing.T) {
	if data, err := findings.CodeQuality(nil); err != nil || string(data) != "[]\n" {
		t.Errorf("got %s, %v", data, err)
	}
	if data, err := findings.SARIF(nil, "1"); err != nil || len(at(t, data, "runs", 0, "results").([]any)) != 0 {
		t.Errorf("got %s, %v", data, err)
	}
}
