package git

import (
	"testing"

	"uenv-ci.dev/internal/fault"
)

func TestListRemote(t *testing.T) {
	dir := repository(t)
	git(t, dir, "2024-06-01T00:00:00Z", "tag", "-a", "v1", "-m", "v1")
	git(t, dir, "", "tag", "light", "HEAD~1")
	git(t, dir, "", "tag", "main", "HEAD~1")
	head, err := Head(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := ListRemote(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if refs.Resolve("main") != head.Commit || refs.Resolve("v1") != head.Commit {
		t.Errorf("got %v, want %s", refs, head.Commit)
	}
	if light := refs.Resolve("light"); !IsCommit(light) || light == head.Commit {
		t.Errorf("got %s", light)
	}
	if refs.Resolve("nope") != "" || refs.Resolve("") != "" {
		t.Errorf("got %v", refs)
	}
	if _, err := ListRemote(t.Context(), dir+"/gone"); fault.KindOf(err) != fault.Network {
		t.Errorf("got %v", err)
	}
	if _, err := ListRemote(t.Context(), "--upload-pack=x"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}
