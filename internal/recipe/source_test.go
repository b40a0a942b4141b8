package recipe_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/recipe"
)

// makeTree makes files (a name ending in "/" is a directory) and links ("a -> b").
func makeTree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		link, target, isLink := strings.Cut(name, " -> ")
		at := filepath.Join(dir, link)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(target, at)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		default:
			err = os.WriteFile(at, []byte("content of "+name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func walked(t *testing.T, dir, name string) (string, error) {
	t.Helper()
	source, err := recipe.OpenSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var seen []string
	err = source.Walk(name, []string{".git"}, func(e recipe.SourceEntry) error {
		text := e.Name
		if !e.Dir {
			f, err := e.Open()
			if err != nil {
				return err
			}
			defer f.Close()
			data, err := io.ReadAll(f)
			if err != nil {
				return err
			}
			text += "=" + strings.TrimPrefix(string(data), "content of ")
		}
		seen = append(seen, text)
		return nil
	})
	return strings.Join(seen, " "), err
}

func TestWalkFollowsLinksInsideTheRepository(t *testing.T) {
	dir := makeTree(t, ".git/", "shared/x", "r/a", "r/d/.git/no", "r/d/b", "r/link -> ../shared", "r/z -> a")
	got, err := walked(t, filepath.Join(dir, "r"), ".")
	want := ". a=r/a d d/b=r/d/b link link/x=shared/x z=r/a"
	if err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if got, err := walked(t, filepath.Join(dir, "r"), "d"); err != nil || got != ". b=r/d/b" {
		t.Errorf("walk of a sub-directory: %q, %v", got, err)
	}
}

func TestWalkRefuses(t *testing.T) {
	for name, entries := range map[string][]string{
		"a link out of a tree without repository": {"x", "r/link -> ../x"},
		"a link out of the repository":            {"x", "repo/.git/", "repo/r/link -> ../../x"},
		"an absolute link":                        {"r/link -> /etc/passwd"},
		"a link to nothing":                       {"r/link -> nothing"},
		"a link to a parent":                      {"r/d/link -> .."},
		"links to each other":                     {"r/a -> b", "r/b -> a"},
	} {
		dir := filepath.Join(makeTree(t, entries...), "r")
		if _, err := os.Stat(dir); err != nil {
			dir = filepath.Join(filepath.Dir(dir), "repo", "r")
		}
		if got, err := walked(t, dir, "."); err == nil {
			t.Errorf("%s: no error, walked %s", name, got)
		}
	}
}

// TestWalkSkips leaves out directories that the visitor does not want, also where
// a link leads to one.
func TestWalkSkips(t *testing.T) {
	source, err := recipe.OpenSource(makeTree(t, "p/b/x", "p/a", "p/c -> b", "p/d/y"))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var got []string
	err = source.Walk("p", nil, func(e recipe.SourceEntry) error {
		got = append(got, e.Name)
		if e.Name == "b" || e.Name == "c" {
			return fs.SkipDir
		}
		return nil
	})
	if want := []string{".", "a", "b", "c", "d", "d/y"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("visited %v, %v", got, err)
	}
}
