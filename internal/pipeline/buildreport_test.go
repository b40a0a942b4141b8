package pipeline

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
	"uenv-ci.dev/schemas"
)

// A report with every member agrees with its schema, and is read as it was
// written.
func TestBuildReportSchema(t *testing.T) {
	b := packed(t, nil, toolsLabel, KeyOptions{})
	r := b.done
	r.Version, r.Finished, r.Seconds, r.Error, r.Existing = BuildReportVersion, r.Started, 1.5, "no", "r@sha256:00"
	r.Attached = []Attached{{meta.TypeSBOM, r.Image.Digest}}
	r.Report.Started, r.Report.Stages = time.Unix(1767230000, 0).UTC(), []build.Stage{{Name: "prepare", Seconds: 1, Failed: true}}
	r.Report.Cache, r.Report.Failure = &build.Cache{Hits: 1}, &build.Failure{Stage: "s", Class: "c", Message: "m", Excerpt: []string{"e"}}
	r.Report.Repositories = []build.Repository{{Name: "ours", Source: "/repo", Commit: someCommit}}
	origin := Origin{Dir: "/recipe", Remote: "https://example.org/r", Commit: someCommit, Path: ".", Files: "ab"}
	r.Inputs = Inputs{Recipe: origin, Cluster: &origin, System: "demo", UArch: "zen2", Mount: "/user-tools", Variables: []string{"A"}, Created: "2026-01-01T00:00:00Z"}
	file := filepath.Join(t.TempDir(), "new", BuildReportFile)
	if err := r.Write(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.Compile(schemas.FS, "build-report.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(text []byte) int {
		node, err := yamlpos.Parse("report", text)
		if err != nil {
			t.Fatal(err)
		}
		problems := s.Validate(node)
		t.Log(problems)
		return len(problems)
	}
	if validate(text) > 0 {
		t.Errorf("the schema refuses %s", text)
	}
	if validate(bytes.Replace(text, []byte(`"stages"`), []byte(`"phases"`), 1)) == 0 || validate([]byte(`{"version": 2}`)) == 0 {
		t.Error("the schema accepts anything")
	}
	read, err := ReadBuildReport(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(read)
	if before, _ := json.Marshal(r); err != nil || !bytes.Equal(again, before) || !reflect.DeepEqual(read.Inputs, r.Inputs) {
		t.Errorf("read as %s", again)
	}
}

func TestReadBuildReport(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]fault.Kind{
		"": fault.Invalid, "{": fault.Invalid, "[]": fault.Invalid, `{"format": 1}`: fault.Invalid, `{"version": 2}`: fault.Invalid,
		`{"version": 1, "seconds": "x"}`: fault.Invalid,
	} {
		file := filepath.Join(dir, "report")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBuildReport(file); fault.KindOf(err) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := ReadBuildReport(filepath.Join(dir, "none")); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a missing report: %v", err)
	}
}

func FuzzBuildReport(f *testing.F) {
	f.Add([]byte(`{"version": 1, "label": {"name": "a"}, "report": {"stages": [{"name": "s"}]}, "inputs": {"recipe": {"dir": "/r"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseBuildReport("report", data); err == nil && r.Version != BuildReportVersion {
			t.Error(r)
		}
	})
}
