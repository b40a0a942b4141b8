package git

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestHooksOfGit runs as git runs its hooks, with variables that name the
// repository of the hook.
func TestHooksOfGit(t *testing.T) {
	theirs, ours := repository(t), repository(t)
	git(t, ours, "", "commit", "--quiet", "--allow-empty", "-m", "third")
	head, err := Head(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_DIR", filepath.Join(theirs, ".git"))
	t.Setenv("GIT_WORK_TREE", theirs)
	t.Setenv("GIT_INDEX_FILE", filepath.Join(theirs, ".git", "index"))
	if got, err := Head(t.Context(), ours); err != nil || got != head {
		t.Errorf("got %v, %v, not %v", got, err, head)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	if got, err := Clone(t.Context(), ours, head.Commit, clone); err != nil || got != head.Commit {
		t.Errorf("clone: got %v, %v", got, err)
	}
	if got, err := Describe(t.Context(), clone); err != nil || got.Commit != head.Commit || got.Dirty {
		t.Errorf("the clone: got %+v, %v", got, err)
	}
}

// TestErrorsHaveNoCredentials asks where nobody answers.
func TestErrorsHaveNoCredentials(t *testing.T) {
	repository(t) // git is there
	const secret = "s3cr3t"
	for _, url := range []string{"http://user:" + secret + "@127.0.0.1:1/x.git", "http://user:" + secret + "%zz@127.0.0.1:1/x.git"} {
		_, clone := Clone(t.Context(), url, "main", t.TempDir())
		_, resolve := ResolveRemote(t.Context(), url, "main")
		_, list := ListRemote(t.Context(), url)
		for _, err := range []error{clone, resolve, list} {
			if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "127.0.0.1:1/x.git") {
				t.Errorf("%s: %v", url, err)
			}
		}
	}
}

// TestSettingsDoNotHideChanges has a user who does not want to be told of new files.
func TestSettingsDoNotHideChanges(t *testing.T) {
	dir := repository(t)
	git(t, dir, "", "config", "status.showUntrackedFiles", "no")
	write(t, filepath.Join(dir, "a", "new"), "x")
	if got, err := Head(t.Context(), filepath.Join(dir, "a")); err != nil || !got.Dirty {
		t.Errorf("head: %+v, %v", got, err)
	}
	if got, err := Describe(t.Context(), filepath.Join(dir, "a")); err != nil || !got.Dirty {
		t.Errorf("describe: %+v, %v", got, err)
	}
}
