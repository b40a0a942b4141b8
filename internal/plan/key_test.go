package plan

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/site"
)

func sampleInput() KeyInput {
	return KeyInput{
		Recipe:  []FileDigest{{"config.yaml", "aa"}, {"environments.yaml", "bb"}},
		Cluster: []FileDigest{{"packages.yaml", "cc"}},
		System:  "daint", UArch: "gh200", Mount: "/user-environment",
		Sources: []Source{
			{Name: "spack", Repo: "https://example.org/spack.git", Ref: "releases/v1.0", Commit: strings.Repeat("1", 40)},
			{Name: "builtin", Repo: "https://example.org/p.git", Commit: strings.Repeat("2", 40)},
		},
		Variables: map[string]string{"A": "1", "B": "2"},
		Packing:   Packing{Codec: "zstd", CodecVersion: "1.5.7", Level: 3, BlockSize: 131072},
	}
}

func keyOf(t *testing.T, in KeyInput) string {
	t.Helper()
	key, unresolved := Key(in)
	if len(key) != 64 || len(unresolved) > 0 {
		t.Fatalf("key %q, unresolved %v", key, unresolved)
	}
	return key
}

// A change of the encoding would silently rebuild everything: then StackFormat
// must be raised on purpose.
func TestKeyIsStable(t *testing.T) {
	const want = "5723eb21fb5b23216b069fffa3cbd9b31ace39fdd1a6179ae6b6ac4413d9225b"
	if got := keyOf(t, sampleInput()); got != want {
		t.Errorf("key %s, want %s", got, want)
	}
}

func TestKeyDependsOnAllThatMatters(t *testing.T) {
	seen := map[string]string{keyOf(t, sampleInput()): "nothing"}
	for name, change := range map[string]func(*KeyInput){
		"recipe file content":    func(in *KeyInput) { in.Recipe[0].Digest = "ab" },
		"recipe file name":       func(in *KeyInput) { in.Recipe[0].Path = "config.yml" },
		"recipe file added":      func(in *KeyInput) { in.Recipe = append(in.Recipe, FileDigest{"x", "dd"}) },
		"recipe file removed":    func(in *KeyInput) { in.Recipe = in.Recipe[:1] },
		"recipe file executed":   func(in *KeyInput) { in.Recipe[0].Digest = "aa executable" },
		"cluster file":           func(in *KeyInput) { in.Cluster[0].Digest = "cd" },
		"file moved":             func(in *KeyInput) { in.Cluster, in.Recipe = in.Recipe, in.Cluster },
		"system":                 func(in *KeyInput) { in.System = "santis" },
		"uarch":                  func(in *KeyInput) { in.UArch = "zen2" },
		"mount":                  func(in *KeyInput) { in.Mount = "/user-tools" },
		"spack commit":           func(in *KeyInput) { in.Sources[0].Commit = strings.Repeat("3", 40) },
		"packages commit":        func(in *KeyInput) { in.Sources[1].Commit = strings.Repeat("3", 40) },
		"variable value":         func(in *KeyInput) { in.Variables = map[string]string{"A": "1", "B": "3"} },
		"variable name":          func(in *KeyInput) { in.Variables = map[string]string{"A": "1", "C": "2"} },
		"variables run together": func(in *KeyInput) { in.Variables = map[string]string{"A": "1variable/B2"} },
		"codec":                  func(in *KeyInput) { in.Packing.Codec = "gzip" },
		"codec version":          func(in *KeyInput) { in.Packing.CodecVersion = "1.5.8" },
		"level":                  func(in *KeyInput) { in.Packing.Level = 4 },
		"block size":             func(in *KeyInput) { in.Packing.BlockSize = 1 << 20 },
	} {
		in := sampleInput()
		in.Recipe, in.Cluster, in.Sources = slices.Clone(in.Recipe), slices.Clone(in.Cluster), slices.Clone(in.Sources)
		change(&in)
		key := keyOf(t, in)
		if other, ok := seen[key]; ok {
			t.Errorf("%s changes no more than %s", name, other)
		}
		seen[key] = name
	}
}

func TestKeyIgnoresOrderAndReference(t *testing.T) {
	want := keyOf(t, sampleInput())
	for range 20 {
		in := sampleInput()
		for _, list := range [][]FileDigest{in.Recipe, in.Cluster} {
			rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		}
		slices.Reverse(in.Sources)
		in.Sources[1].Ref = strings.Repeat("1", 40) // the branch's commit, pinned
		if got := keyOf(t, in); got != want {
			t.Fatal("the key depends on order or on how a commit is named")
		}
	}
}

func TestUnresolvedHasNoKey(t *testing.T) {
	in := sampleInput()
	in.Sources[0].Commit = ""
	key, unresolved := Key(in)
	if key != "" || len(unresolved) != 1 || !strings.Contains(unresolved[0], "'releases/v1.0' of https://example.org/spack.git") {
		t.Errorf("key %q, unresolved %v", key, unresolved)
	}
}

// write makes files in a directory; a name ending in "*" is made executable.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		at, executable := strings.CutSuffix(filepath.Join(dir, name), "*")
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func recipeDigests(t *testing.T, dir string) []FileDigest {
	t.Helper()
	digests, err := new(Files).Recipe(dir)
	if err != nil {
		t.Fatal(err)
	}
	return digests
}

var recipeFiles = map[string]string{"config.yaml": "name: x", "repo/packages/p/package.py": "p", "post-install*": "#!/bin/sh", "extra/a": "a"}

func TestRecipeDigestsAreThoseOfAnyCheckout(t *testing.T) {
	first := write(t, t.TempDir(), recipeFiles)
	want := recipeDigests(t, first)

	second := filepath.Join(write(t, t.TempDir(), map[string]string{".git/HEAD": "x", "shared/a": "a"}), "deep", "recipe")
	write(t, second, recipeFiles)
	write(t, second, map[string]string{"repo/.git/x": "not part of it"})
	// The same content by a link, other times, other permissions.
	if err := os.RemoveAll(filepath.Join(second, "extra")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../shared", filepath.Join(second, "extra")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(second, "config.yaml"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(second, "config.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(second, "post-install"), 0o775); err != nil {
		t.Fatal(err)
	}
	if got := recipeDigests(t, second); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestRecipeDigestsNoticeChanges(t *testing.T) {
	want := recipeDigests(t, write(t, t.TempDir(), recipeFiles))
	for name, change := range map[string]func(dir string) error{
		"content":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "extra/a"), []byte("b"), 0o644) },
		"executable": func(dir string) error { return os.Chmod(filepath.Join(dir, "post-install"), 0o644) },
		"new file":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "extra/b"), nil, 0o644) },
		"removed":    func(dir string) error { return os.Remove(filepath.Join(dir, "extra/a")) },
		"renamed":    func(dir string) error { return os.Rename(filepath.Join(dir, "extra/a"), filepath.Join(dir, "extra/b")) },
	} {
		dir := write(t, t.TempDir(), recipeFiles)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if slices.Equal(recipeDigests(t, dir), want) {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestClusterDigests(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"daint/packages.yaml": "packages: {}", "daint/network.yaml": "mpi: {}", "daint/notes.txt": "n",
		"repo/packages/p/package.py": "p", "repo/packages.txt": "p",
	})
	cluster := &site.Cluster{
		Dir: filepath.Join(dir, "daint"), OtherFiles: []string{"network.yaml", "notes.txt", "packages.yaml"}, PackageRepos: []string{filepath.Join(dir, "repo")},
	}
	paths := func(version int) string {
		digests, err := new(Files).Cluster(cluster, version)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range digests {
			names = append(names, d.Path)
		}
		return strings.Join(names, " ")
	}
	const repo = " repo0/./ repo0/p/ repo0/p/package.py"
	if got := paths(1); got != "network.yaml notes.txt packages.yaml"+repo {
		t.Errorf("version 1: %s", got)
	}
	if got := paths(3); got != "packages.yaml network.yaml"+repo {
		t.Errorf("version 3: %s", got)
	}
}
