package git

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
)

func TestDescribe(t *testing.T) {
	dir := repository(t)
	git(t, dir, "", "remote", "add", "origin", "https://ci-token:secret@example.org/recipes.git")
	write(t, filepath.Join(dir, "a", "new"), "x")
	for sub, want := range map[string]Checkout{
		"a": {Path: "a", Revision: Revision{Dirty: true}},
		"b": {Path: "b"},
		".": {Path: ".", Revision: Revision{Dirty: true}},
	} {
		got, err := Describe(t.Context(), filepath.Join(dir, sub))
		if err != nil || got.Path != want.Path || got.Dirty != want.Dirty || !IsCommit(got.Commit) {
			t.Errorf("%s: got %+v, %v", sub, got, err)
		}
		if got.Remote != "https://example.org/recipes.git" {
			t.Errorf("%s: remote %q", sub, got.Remote)
		}
	}
	git(t, dir, "", "remote", "remove", "origin")
	if got, err := Describe(t.Context(), dir); err != nil || got.Remote != "" {
		t.Errorf("without a remote: got %+v, %v", got, err)
	}
	empty := t.TempDir()
	git(t, empty, "", "init", "--quiet")
	for _, dir := range []string{empty, t.TempDir()} {
		if _, err := Describe(t.Context(), dir); !errors.Is(err, ErrNotARepository) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWithoutCredentials(t *testing.T) {
	for remote, want := range map[string]string{
		"https://u:p@example.org/x.git":   "https://example.org/x.git",
		"https://example.org/x.git":       "https://example.org/x.git",
		"ssh://git@example.org/x.git":     "ssh://git@example.org/x.git",
		"git@example.org:group/x.git":     "git@example.org:group/x.git",
		"/srv/git/x.git":                  "/srv/git/x.git",
		"https://token@example.org/x.git": "https://example.org/x.git",
		"https://u:p%zz@example.org:1/x":  "https://example.org:1/x",
		"https://u:a@b@example.org":       "https://example.org",
		"ssh://git:p@example.org/x.git":   "ssh://git@example.org/x.git",
		"https://u:pa/ss@example.org/x":   "https://example.org/x",
		"https://u:1/p@s@example.org/x":   "https://u:1/p@s@example.org/x", // may be a port and a path
		"https://u:a/p@s@example.org/x":   "https://example.org/x",
		"https://example.org:1/x@2":       "https://example.org:1/x@2",
		"https://example.org/x@2":         "https://example.org/x@2",
		"https://[::1]:1/x@2":             "https://[::1]:1/x@2",
		"https://":                        "https://",
	} {
		if got := WithoutCredentials(remote); got != want {
			t.Errorf("%s: got %s", remote, got)
		}
	}
}

// Git itself takes passwords out of its messages, but for those with a slash.
func TestMessagesHaveNoPassword(t *testing.T) {
	const url = "https://u:pa/ss@127.0.0.1:1/x.git"
	_, resolve := ResolveRemote(t.Context(), url, "main")
	_, list := ListRemote(t.Context(), url)
	_, clone := Clone(t.Context(), url, "main", t.TempDir())
	_, abbreviated := Clone(t.Context(), url, "0123456", t.TempDir())
	for name, err := range map[string]error{"resolve": resolve, "list": list, "clone": clone, "abbreviated": abbreviated} {
		if err == nil || strings.Contains(err.Error(), "pa/ss") || !strings.Contains(err.Error(), "https://127.0.0.1:1/x.git") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExport(t *testing.T) {
	dir := repository(t)
	write(t, filepath.Join(dir, "b", "f"), "3")
	to := t.TempDir()
	if err := Export(t.Context(), dir, "HEAD~1", to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a/f": "1", "b/f": "1"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if got, err := Head(t.Context(), filepath.Join(dir, "a")); err != nil || got.Dirty {
		t.Errorf("the work tree changed: %+v, %v", got, err)
	}
	for _, revision := range []string{"no-such", "--help"} {
		if err := Export(t.Context(), dir, revision, t.TempDir()); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: got %v", revision, err)
		}
	}
}

func TestCloneOfAnAbbreviatedCommit(t *testing.T) {
	dir := repository(t)
	git(t, dir, "", "config", "uploadpack.allowFilter", "true")
	head, err := Head(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "clone")
	if got, err := Clone(t.Context(), "file://"+dir, head.Commit[:8], to); err != nil || got != head.Commit {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(to, "b", "f")); err != nil || string(got) != "2" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestExportAddsNothing exports a repository that has a file of a name that an index
// could have.
func TestExportAddsNothing(t *testing.T) {
	dir := repository(t)
	write(t, filepath.Join(dir, ".index"), "theirs")
	git(t, dir, "", "add", ".")
	git(t, dir, "", "commit", "--quiet", "-m", "third")
	to := t.TempDir()
	if err := Export(t.Context(), dir, "HEAD", to); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(to)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{".index", "a", "b"}) {
		t.Errorf("exported %q, %v", names, err)
	}
	if data, err := os.ReadFile(filepath.Join(to, ".index")); err != nil || string(data) != "theirs" {
		t.Errorf("%q, %v", data, err)
	}
}
