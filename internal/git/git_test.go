package git

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// repository makes a work tree with two commits: one at 2024-01-01 that adds
// a/f and b/f, one at 2024-06-01 that changes b/f.
func repository(t *testing.T) string {
	t.Helper()
	if _, ok := proc.Look("git"); !ok {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	git(t, dir, "2024-01-01T00:00:00Z", "init", "--quiet", "--initial-branch=main")
	git(t, dir, "", "config", "uploadpack.allowAnySHA1InWant", "true")
	write(t, filepath.Join(dir, "a", "f"), "1")
	write(t, filepath.Join(dir, "b", "f"), "1")
	git(t, dir, "", "add", ".")
	git(t, dir, "2024-01-01T00:00:00Z", "commit", "--quiet", "-m", "first")
	write(t, filepath.Join(dir, "b", "f"), "2")
	git(t, dir, "2024-06-01T00:00:00Z", "commit", "--quiet", "-am", "second")
	return dir
}

func git(t *testing.T, dir, date string, args ...string) {
	t.Helper()
	env := append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.org",
		"GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.org", "GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date)
	if err := (proc.Cmd{Path: "git", Args: append([]string{"-C", dir}, args...), Env: env}).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLastChange(t *testing.T) {
	dir := repository(t)
	for sub, want := range map[string]string{"a": "2024-01-01", "b": "2024-06-01"} {
		got, err := LastChange(t.Context(), filepath.Join(dir, sub))
		if err != nil || got.Format(time.DateOnly) != want {
			t.Errorf("%s: got %v, %v", sub, got, err)
		}
	}
	if _, err := LastChange(t.Context(), t.TempDir()); !errors.Is(err, ErrNotARepository) {
		t.Errorf("outside a repository: got %v", err)
	}
}

func TestLastChangeBehindAShallowBoundary(t *testing.T) {
	dir := repository(t)
	clone := filepath.Join(t.TempDir(), "clone")
	commit, err := Clone(t.Context(), "file://"+dir, "main", clone)
	if err != nil {
		t.Fatal(err)
	}
	if head, err := Head(t.Context(), clone); err != nil || head.Commit != commit || head.Dirty {
		t.Errorf("got %+v, %v", head, err)
	}
	_, err = LastChange(t.Context(), filepath.Join(clone, "a"))
	if fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestHeadNoticesChanges(t *testing.T) {
	dir := repository(t)
	write(t, filepath.Join(dir, "a", "new"), "x")
	head, err := Head(t.Context(), filepath.Join(dir, "a"))
	if err != nil || !head.Dirty || !IsCommit(head.Commit) {
		t.Errorf("got %+v, %v", head, err)
	}
	if clean, err := Head(t.Context(), filepath.Join(dir, "b")); err != nil || clean.Dirty {
		t.Errorf("got %+v, %v", clean, err)
	}
}

func TestResolveRemote(t *testing.T) {
	dir := repository(t)
	git(t, dir, "2024-06-01T00:00:00Z", "tag", "-a", "v1", "-m", "v1")
	head, err := Head(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, reference := range []string{"", "main", "v1", head.Commit} {
		if got, err := ResolveRemote(t.Context(), dir, reference); err != nil || got != head.Commit {
			t.Errorf("%q: got %q, %v", reference, got, err)
		}
	}
	if _, err := ResolveRemote(t.Context(), dir, "nope"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := ResolveRemote(t.Context(), dir, "--upload-pack=x"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
	if _, err := ResolveRemote(t.Context(), filepath.Join(dir, "gone"), "main"); fault.KindOf(err) != fault.Network {
		t.Errorf("got %v", err)
	}
}
