package site_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/yamlpos"
)

// The example of the documentation is right, and has every key that there is.
func TestDocumentedSiteFile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "site.md"))
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?ms)^```yaml uenv-ci.yaml\n(.*?)^```$").FindSubmatch(text)
	if example == nil {
		t.Fatal("docs/site.md has no example")
	}
	dir := write(t, map[string]string{"site.yaml": string(example[1])})
	s, err := site.Find(filepath.Join(dir, "site.yaml"), env("SCRATCH", "/scratch"))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings) > 0 || s.Rules == nil {
		t.Errorf("%+v", s)
	}
	root, problems := yamlpos.Read("site.yaml", example[1])
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	shown := map[string]bool{}
	collectKeys(root, "", shown)
	for _, key := range schemaKeys(t) {
		if !shown[key] {
			t.Errorf("the example lacks %s", key)
		}
	}
}

// collectKeys enters the paths of all keys; items of lists and what may have any name
// are "*".
func collectKeys(n *yamlpos.Node, path string, into map[string]bool) {
	for _, p := range yamlpos.Pairs(n) {
		name := p.Key.Raw
		if path == "uenvs" {
			name = "*"
		}
		key := strings.TrimPrefix(path+"."+name, ".")
		into[key] = true
		collectKeys(p.Value, key, into)
	}
	for _, item := range yamlpos.Items(n) {
		collectKeys(item, path+".*", into)
	}
}

func schemaKeys(t *testing.T) []string {
	t.Helper()
	type schema struct {
		Properties        map[string]json.RawMessage
		PatternProperties map[string]json.RawMessage
		Items             json.RawMessage
	}
	var keys []string
	var walk func(raw []byte, path string)
	walk = func(raw []byte, path string) {
		var s schema
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		for name, next := range s.Properties {
			key := strings.TrimPrefix(path+"."+name, ".")
			keys = append(keys, key)
			walk(next, key)
		}
		for _, next := range s.PatternProperties {
			walk(next, path+".*")
		}
		if s.Items != nil {
			walk(s.Items, path+".*")
		}
	}
	data, err := os.ReadFile(filepath.Join("..", "..", "schemas", "site.json"))
	if err != nil {
		t.Fatal(err)
	}
	walk(data, "")
	if len(keys) < 40 {
		t.Errorf("the schema has %d keys", len(keys))
	}
	slices.Sort(keys)
	return keys
}
