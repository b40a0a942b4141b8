package reframe

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/testdirs"
)

func TestParseEnvironments(t *testing.T) {
	got, err := ParseEnvironments("reframe.yaml", []byte(`
develop:
  features: [cuda, mpi]
  cc: mpicc
  views: [develop, modules]
  activation:
    - module load cmake
  extras: {version: 2025.0, flags: [1, yes], deep: {on: off}}
old:
  activation: /user-environment/activate.sh
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Environment{
		{
			Name: "develop", Features: []string{"cuda", "mpi"}, Views: []string{"develop", "modules"}, Activation: []string{"module load cmake"},
			Settings: map[string]any{"cc": "mpicc", "extras": map[string]any{
				"version": "2025.0", "flags": []any{"1", "yes"}, "deep": map[string]any{"on": "off"},
			}},
		},
		{Name: "old", Activation: []string{"source /user-environment/activate.sh"}, Settings: map[string]any{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestParseEnvironmentsNamesEveryFault(t *testing.T) {
	_, err := ParseEnvironments("reframe.yaml", []byte("a:\n  feature: [x]\n  views: develop\nb: [1]\nc:\n  extras: 3\n"))
	var problems fault.Problems
	if !errors.As(err, &problems) || len(problems) != 4 {
		t.Fatalf("got %v", err)
	}
	for i, want := range []string{"reframe.yaml:2:3: ", "reframe.yaml:3:10: views: a list", "reframe.yaml:4:4: environment b: a mapping", "reframe.yaml:6:11: extras"} {
		if !strings.HasPrefix(problems[i].String(), want) {
			t.Errorf("got %q, want %q", problems[i], want)
		}
	}
	if !strings.Contains(problems[0].Hint, "features") {
		t.Errorf("hint %q", problems[0].Hint)
	}
}

func TestParseEnvironmentsOfNothing(t *testing.T) {
	if got, err := ParseEnvironments("e.yaml", nil); err != nil || got != nil {
		t.Errorf("an empty file reads as %v, %v", got, err)
	}
}

func TestParseEnvironmentsOfTheCorpus(t *testing.T) {
	n := 0
	err := filepath.WalkDir(testdirs.Corpus(t, "alps-uenv/recipes"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "reframe.yaml" {
			return err
		}
		n++
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		envs, err := ParseEnvironments(path, data)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, e := range envs {
			if e.Name == "" || len(e.Features) == 0 || len(e.Views)+len(e.Activation) == 0 {
				t.Errorf("%s: read as %+v", path, e)
			}
		}
		return nil
	})
	if err != nil || n < 30 {
		t.Errorf("read %d files, %v", n, err)
	}
}

func FuzzParseEnvironments(f *testing.F) {
	f.Add([]byte("a: {features: [x], views: [v], activation: a.sh, extras: {version: 1.0}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		envs, err := ParseEnvironments("f", data)
		if err != nil {
			return
		}
		if _, err := (SiteConfig{System: "s", Partition: "p", Environments: envs}).Encode(); err != nil {
			t.Error(err)
		}
	})
}
