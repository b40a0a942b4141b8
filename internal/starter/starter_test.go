package starter_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/starter"
	"uenv-ci.dev/internal/yamlpos"
	"uenv-ci.dev/schemas"
)

// Every example is a recipe without a fault, whatever the name.
func TestRecipes(t *testing.T) {
	for format, want := range map[int][]string{
		0: {"build", "config.yaml", "environments.yaml", "extra/test"},
		1: {"compilers.yaml", "config.yaml", "environments.yaml", "extra/test"},
		2: {"compilers.yaml", "config.yaml", "environments.yaml", "extra/test", "packages.yaml"},
	} {
		for _, name := range []string{"mytool", "on", "null", "1.0", "0755", "12e3", "2025-10-01", "prgenv-gnu", "a.b_c", "n"} {
			t.Run(fmt.Sprint(format, " ", name), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "new", "recipe")
				files, err := starter.Recipe{Dir: dir, Name: name, Version: "25.10", Format: format}.Write()
				if err != nil || !slices.Equal(files, want) {
					t.Fatalf("got %q, %v", files, err)
				}
				r, err := recipe.Load(t.Context(), dir)
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Warnings) > 0 || r.Name != name || r.Version != format || r.Description != name+" 25.10" || r.Extra == "" {
					t.Errorf("got %+v", r)
				}
				if info, err := os.Stat(filepath.Join(dir, "extra", "test")); err != nil || info.Mode()&0o111 == 0 {
					t.Errorf("extra/test: %v, %v", info.Mode(), err)
				}
				if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
					t.Errorf("left over: %v, %v", entries, err)
				}
			})
		}
	}
}

// What the comments offer is right too: with all of it the recipe is still one.
func TestCommentedSettingsOfRecipes(t *testing.T) {
	commented := regexp.MustCompile(`(?m)^( *)# ([a-zA-Z_]+:.*|  +[a-zA-Z_]+:.*| +- [A-Z_]+:.*)$`)
	for format, least := range map[int]int{0: 5, 1: 5, 2: 9} {
		dir := filepath.Join(t.TempDir(), "recipe")
		files, err := starter.Recipe{Dir: dir, Name: "my-tool", Version: "1", Format: format}.Write()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, name := range files {
			path := filepath.Join(dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(name) == ".yaml" {
				found += len(commented.FindAll(text, -1))
				text = commented.ReplaceAll(text, []byte("$1$2"))
			}
			if err := os.WriteFile(path, text, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if found < least {
			t.Errorf("format %d: %d commented settings", format, found)
		}
		if _, err := recipe.Load(t.Context(), dir); err != nil {
			t.Errorf("format %d: %v", format, err)
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	r := starter.Recipe{Dir: filepath.Join(dir, "r"), Name: "a", Version: "1", Format: 2}
	if err := os.Mkdir(r.Dir, 0o755); err != nil { // empty is as good as new
		t.Fatal(err)
	}
	if _, err := r.Write(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(r *starter.Recipe){
		func(*starter.Recipe) {},
		func(r *starter.Recipe) { r.Dir = filepath.Join(r.Dir, "config.yaml") },
	} {
		again := r
		change(&again)
		if _, err := again.Write(); fault.KindOf(err) != fault.Refused {
			t.Errorf("%s: got %v", again.Dir, err)
		}
	}
	for _, wrong := range []starter.Recipe{
		{Dir: r.Dir + "2", Name: "../a", Version: "1"}, {Dir: r.Dir + "2", Name: "a", Version: ""},
		{Dir: r.Dir + "2", Name: "Upper", Version: "1"}, {Dir: r.Dir + "2", Name: "a", Version: "1", Format: 3},
	} {
		if _, err := wrong.Write(); fault.KindOf(err) != fault.Usage {
			t.Errorf("%+v: got %v", wrong, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v", entries, err)
	}
}

func env(name string) string { return map[string]string{"SCRATCH": "/scratch"}[name] }

// As it is written the file says nothing, or the registry, and is right.
func TestSiteFile(t *testing.T) {
	for _, registry := range []string{"", "registry.example.org/uenv", "oci:dir with # blanks"} {
		path := filepath.Join(t.TempDir(), "site.yaml")
		if err := starter.WriteSite(path, registry); err != nil {
			t.Fatal(err)
		}
		s, err := site.LoadSite(path, env)
		if err != nil || len(s.Warnings) > 0 || s.Registry.Given() != (registry != "") {
			t.Errorf("%q: got %+v, %v", registry, s, err)
		}
		if err := starter.WriteSite(path, registry); fault.KindOf(err) != fault.Refused {
			t.Errorf("again: got %v", err)
		}
	}
}

// All that the comments offer is a site file without a mistake, and has every key.
func TestCommentedKeysOfTheSiteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "site.yaml")
	if err := starter.WriteSite(path, ""); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^#( *- \{|-? *\{?[a-z_0-9]+:)`).ReplaceAll(text, []byte("$1"))
	text = regexp.MustCompile(`(?m)^#( +-)`).ReplaceAll(text, []byte("$1"))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.yaml", "recipes", "cluster-config", "cluster-config-v1"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, err := site.Find(path, env)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if s.Rules == nil || len(s.Rules.Waivers) != 1 || len(s.Uenvs) != 1 || len(s.Uenvs[0].HookSecrets) != 1 || s.Build.Jobs != 64 || s.Tests.Runner != "reframe" {
		t.Errorf("got %+v of\n%s", s, text)
	}
	root, problems := yamlpos.Read(path, text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	shown := map[string]bool{}
	collect(root, "", shown)
	for _, key := range schemaKeys(t) {
		if !shown[key] {
			t.Errorf("the file lacks %s", key)
		}
	}
}

// collect enters the paths of all keys; items of lists and names of uenvs are "*".
func collect(n *yamlpos.Node, path string, into map[string]bool) {
	for _, p := range yamlpos.Pairs(n) {
		name := p.Key.Raw
		if path == "uenvs" {
			name = "*"
		}
		key := strings.TrimPrefix(path+"."+name, ".")
		into[key] = true
		collect(p.Value, key, into)
	}
	for _, item := range yamlpos.Items(n) {
		collect(item, path+".*", into)
	}
}

func schemaKeys(t *testing.T) []string {
	t.Helper()
	type node struct {
		Properties, PatternProperties map[string]node
		Items                         *node
	}
	data, err := schemas.FS.ReadFile("site.json")
	var root node
	if err == nil {
		err = json.Unmarshal(data, &root)
	}
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	var walk func(n node, path string)
	walk = func(n node, path string) {
		for name, next := range n.Properties {
			keys = append(keys, strings.TrimPrefix(path+"."+name, "."))
			walk(next, strings.TrimPrefix(path+"."+name, "."))
		}
		for _, next := range n.PatternProperties {
			walk(next, path+".*")
		}
		if n.Items != nil {
			walk(*n.Items, path+".*")
		}
	}
	walk(root, "")
	if len(keys) < 40 {
		t.Errorf("the schema has %d keys", len(keys))
	}
	return keys
}
