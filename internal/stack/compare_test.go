package stack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/yamlpos"
)

// compareTrees compares the data files below golden with those of candidate by
// the rules in the corpus' README, and returns the differences.
func compareTrees(golden, candidate, build string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(golden, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(golden, path)
		if err != nil || name == "run.json" || !isDataFile(name) {
			return err
		}
		want, err := loadData(path)
		if err != nil {
			return err
		}
		got, err := loadData(filepath.Join(candidate, name))
		if err != nil {
			found = append(found, fmt.Sprintf("%s: %v", name, err))
			return nil
		}
		c := comparison{file: name}
		c.compare("$", want, replaceBuild(got, build))
		found = append(found, c.found...)
		return nil
	})
	return found, err
}

func isDataFile(name string) bool {
	return slices.ContainsFunc([]string{".yaml", ".yml", ".json", ".json.in"}, func(end string) bool {
		return strings.HasSuffix(name, end)
	})
}

// loadData reads YAML or JSON as values of the types of yamlpos.Node.Data.
func loadData(path string) (any, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if strings.Contains(filepath.Base(path), ".json") {
		var value any
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		err := decoder.Decode(&value)
		return fromJSON(value), err
	}
	node, err := yamlpos.Parse(path, data)
	return node.Data(), err
}

func fromJSON(value any) any {
	switch v := value.(type) {
	case map[string]any:
		m := &yamlpos.Map{}
		for key, item := range v {
			m.Set(key, fromJSON(item))
		}
		return m
	case []any:
		for i := range v {
			v[i] = fromJSON(v[i])
		}
		return v
	default:
		return v
	}
}

func replaceBuild(value any, build string) any {
	switch v := value.(type) {
	case string:
		return strings.ReplaceAll(v, build, "@BUILD@")
	case []any:
		for i := range v {
			v[i] = replaceBuild(v[i], build)
		}
	case *yamlpos.Map:
		for _, key := range v.Keys() {
			if item, ok := v.Get(key); ok {
				v.Set(key, replaceBuild(item, build))
			}
		}
	}
	return value
}

type comparison struct {
	file  string
	found []string
}

func (c *comparison) differ(path string, want, got any) {
	c.found = append(c.found, fmt.Sprintf("%s: %s: %#v != %#v", c.file, path, want, got))
}

func (c *comparison) compare(path string, want, got any) {
	if want == "@ANY@" {
		return
	}
	if reflect.TypeOf(want) != reflect.TypeOf(got) {
		c.differ(path, want, got)
		return
	}
	switch want := want.(type) {
	case *yamlpos.Map:
		c.compareMaps(path, want, got.(*yamlpos.Map))
	case []any:
		c.compareLists(path, want, got.([]any))
	case float64:
		if want != got && !(math.IsNaN(want) && math.IsNaN(got.(float64))) {
			c.differ(path, want, got)
		}
	default:
		if !reflect.DeepEqual(want, got) {
			c.differ(path, want, got)
		}
	}
}

func (c *comparison) compareMaps(path string, want, got *yamlpos.Map) {
	values := func(m *yamlpos.Map) map[string]any {
		byKey := map[string]any{}
		for _, e := range m.Entries() {
			byKey[fmt.Sprintf("%T %v", e.Key, e.Key)] = e.Value
		}
		return byKey
	}
	wanted, gotten := values(want), values(got)
	for key, value := range wanted {
		if other, ok := gotten[key]; ok {
			c.compare(path+"."+key, value, other)
		} else {
			c.differ(path+"."+key, value, "<missing>")
		}
	}
	if filepath.Base(c.file) != "configure.json" {
		for key, value := range gotten {
			if _, ok := wanted[key]; !ok {
				c.differ(path+"."+key, "<missing>", value)
			}
		}
	}
	if c.file == "config/repos.yaml" && path == "$.string repos" && !slices.Equal(want.Keys(), got.Keys()) {
		c.differ(path+" (order)", want.Keys(), got.Keys())
	}
}

func (c *comparison) compareLists(path string, want, got []any) {
	for i := range max(len(want), len(got)) {
		here := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case i >= len(got):
			c.differ(here, want[i], "<missing>")
		case i >= len(want):
			c.differ(here, "<missing>", got[i])
		default:
			c.compare(here, want[i], got[i])
		}
	}
}

// The comparison is the judge of the golden test, so it has to notice what counts.
func TestComparisonSeesDifferences(t *testing.T) {
	for _, c := range []struct {
		file, want, got string
		same            bool
	}{
		{"a.yaml", "a: 1", "a: 1", true},
		{"a.yaml", "a: 1", `a: "1"`, false},
		{"a.yaml", "a: 1", "a: 1.0", false},
		{"a.yaml", "a: true", "a: yes", true},
		{"a.yaml", "a: 1\nb: 2", "b: 2\na: 1", true},
		{"a.yaml", "a: 1", "a: 1\nb: 2", false},
		{"a.yaml", "a: [1]", "a: [1, 2]", false},
		{"a.yaml", "a: [1, 2]", "a: [2, 1]", false},
		{"a.yaml", "a: '@ANY@'", "a: [2]", true},
		{"a.yaml", "a: '@ANY@'", "b: [2]", false},
		{"a.yaml", "1: x", "'1': x", false},
		{"a.yaml", "a: '@BUILD@/x'", "a: /build/x", true},
		{"config/repos.yaml", "repos: {a: x, b: y}", "repos: {b: y, a: x}", false},
		{"store/configure.json", `{"a": 1}`, `{"b": 2, "a": 1}`, true},
		{"store/configure.json", `{"a": 1}`, `{"a": 1.0}`, false},
	} {
		golden, candidate := t.TempDir(), t.TempDir()
		for dir, text := range map[string]string{golden: c.want, candidate: c.got} {
			file := filepath.Join(dir, c.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		found, err := compareTrees(golden, candidate, "/build")
		if err != nil || (len(found) == 0) != c.same {
			t.Errorf("%s: %q and %q: same %t, differences %v, error %v", c.file, c.want, c.got, c.same, found, err)
		}
	}
}
