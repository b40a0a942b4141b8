package localrepo

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

func TestVerify(t *testing.T) {
	r := open(t, t.TempDir())
	byLabel := map[string]digest.Digest{}
	for _, name := range []string{"complete", "truncated", "corrupt", "missing", "older", "olderTruncated", "metaonly", "wrongManifest"} {
		byLabel[name] = pull(t, r, []byte("content of "+name), name+"/1:1@s%u")
	}
	orphan := pull(t, r, []byte("orphan"))
	broken := pull(t, r, []byte("broken orphan"))
	added := []byte("added")
	addedDigest := digest.FromBytes(added)
	if err := store(t.Context(), r, addedDigest, added, Content{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(t.Context(), record(t, "added/1:1@s%u", addedDigest, len(added))); err != nil {
		t.Fatal(err)
	}
	at := func(name string) Paths { return r.Paths(byLabel[name]) }
	err := errors.Join(
		os.Truncate(at("truncated").Image, 3),
		os.WriteFile(at("corrupt").Image, []byte("CONTENT of corrupt"), 0o644),
		os.RemoveAll(at("missing").Dir),
		os.Remove(at("older").Manifest), // as pulled by a client that keeps none
		os.Remove(at("olderTruncated").Manifest),
		os.Truncate(at("olderTruncated").Image, 3),
		os.Remove(at("metaonly").Image),
		os.WriteFile(at("wrongManifest").Manifest, []byte("{}"), 0o644),
		os.Truncate(r.Paths(broken).Image, 1))
	if err != nil {
		t.Fatal(err)
	}

	conditions := func(o VerifyOptions) map[digest.Digest]Condition {
		t.Helper()
		findings, err := r.Verify(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		found := map[digest.Digest]Condition{}
		for _, f := range findings {
			found[f.Digest] = f.Condition
		}
		return found
	}
	check := func(kind string, got map[digest.Digest]Condition, d digest.Digest, want Condition) {
		t.Helper()
		if got[d] != want {
			t.Errorf("%s: %s is %q, want %q", kind, label.ID(d), got[d], want)
		}
	}
	full, quick := conditions(VerifyOptions{}), conditions(VerifyOptions{Quick: true})
	for name, want := range map[string][2]Condition{ // full, quick
		"complete":       {Complete, Complete},
		"truncated":      {Truncated, Truncated},
		"corrupt":        {Corrupt, Complete},
		"missing":        {Missing, Missing},
		"older":          {Unverifiable, Complete},
		"olderTruncated": {Truncated, Truncated},
		"metaonly":       {MetaOnly, MetaOnly},
		"wrongManifest":  {Corrupt, Corrupt},
	} {
		check("full "+name, full, byLabel[name], want[0])
		check("quick "+name, quick, byLabel[name], want[1])
	}
	check("added", full, addedDigest, Complete)
	check("orphan", full, orphan, Orphaned)
	check("broken orphan", full, broken, Truncated)
	if got := conditions(VerifyOptions{Only: []digest.Digest{orphan}}); len(got) != 1 {
		t.Errorf("one was asked for: %v", got)
	}

	status, err := r.Status(t.Context())
	if err != nil || status.Labels != 9 || status.Images != 11 || status.Bad["truncated"] != 3 || !status.Writable || status.Space.Free == 0 {
		t.Errorf("status %+v, %v", status, err)
	}
}

func TestFileDigest(t *testing.T) {
	r := open(t, t.TempDir())
	content := []byte("content")
	d := pull(t, r, content)
	if got, err := r.FileDigest(d); err != nil || got != digest.FromBytes(content) {
		t.Errorf("%s, %v", got, err)
	}
	if err := os.Remove(r.Paths(d).Manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := r.FileDigest(d); fault.KindOf(err) != fault.NotFound {
		t.Errorf("without manifest: %v", err)
	}
}

// leave makes what a killed pull leaves of an image.
func leave(t *testing.T, r *Repo, d digest.Digest) {
	t.Helper()
	lock, err := r.Lock(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	stage, err := r.Stage(lock)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stage.Image(), []byte("part of"), 0o600); err != nil {
		t.Fatal(err)
	}
	lock.Unlock() // as the kernel does for a killed process
}

// prune returns the names of what was pruned.
func prune(t *testing.T, r *Repo, o PruneOptions) []string {
	t.Helper()
	gone, err := r.Prune(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{}
	for _, g := range gone {
		if g.Path != "" {
			paths = append(paths, filepath.Base(g.Path))
		}
	}
	slices.Sort(paths)
	return paths
}

func sorted(names ...string) []string {
	slices.Sort(names)
	return names
}

func TestPrune(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "[a]")) // no pattern
	former := pull(t, r, []byte("former"), "hello/1:1@s%u")
	kept := pull(t, r, []byte("latter"), "hello/1:1@s%u") // takes the label
	busy := pull(t, r, []byte("busy"))
	killed := digest.FromString("killed")
	leave(t, r, killed)
	other := open(t, r.Dir())
	held, err := other.Lock(t.Context(), busy)
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(r.Dir(), "."+databaseName+"-1")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	if got := prune(t, r, PruneOptions{}); len(got) > 0 {
		t.Errorf("young things were removed: %q", got)
	}
	r.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	want := sorted(filepath.Base(old), former.Encoded())
	for _, dry := range []bool{true, false} {
		if got := prune(t, r, PruneOptions{Dry: dry}); !slices.Equal(got, want) {
			t.Errorf("after hours, dry %v: %q, want %q", dry, got, want)
		}
		if exists(r.Paths(former).Dir) != dry {
			t.Errorf("dry %v: the former image", dry)
		}
	}
	r.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	want = sorted("."+killed.Encoded()+".partial", killed.Encoded()+".lock", former.Encoded()+".lock")
	if got := prune(t, r, PruneOptions{}); !slices.Equal(got, want) {
		t.Errorf("after a day: %q, want %q", got, want)
	}
	for _, d := range []digest.Digest{kept, busy} {
		if !exists(r.Paths(d).Image) {
			t.Errorf("%s is gone", d)
		}
	}
	if n := count(t, r, "images"); n != 1 {
		t.Errorf("%d rows of images", n)
	}
	held.Unlock()
	r.now = time.Now
	want = sorted(busy.Encoded(), busy.Encoded()+".lock")
	if got := prune(t, r, PruneOptions{All: true}); !slices.Equal(got, want) {
		t.Errorf("all: %q, want %q", got, want)
	}
	if got := prune(t, r, PruneOptions{All: true}); len(got) != 0 {
		t.Errorf("again: %q", got)
	}
}

// TestPruneSparesLocksInUse lets a waiter, which as the uenv client does not
// notice that its lock file is gone, have the lock file open.
func TestPruneSparesLocksInUse(t *testing.T) {
	r := open(t, t.TempDir())
	d := digest.FromString("x")
	lock, err := r.Lock(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	r.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	for range 2 {
		if got := prune(t, r, PruneOptions{All: true}); len(got) > 0 || !exists(r.Paths(d).Lock) {
			t.Errorf("a held lock: %q", got)
		}
	}
	lock.Unlock()
	r.now = time.Now
	if got := prune(t, r, PruneOptions{}); len(got) > 0 || !exists(r.Paths(d).Lock) {
		t.Errorf("a lock that was just used: %q", got)
	}
}

func TestPruneUnused(t *testing.T) {
	r := open(t, t.TempDir())
	if !keepsAccessTimes(r.Dir()) {
		t.Skip("the temporary directory is on a file system without access times")
	}
	old := pull(t, r, []byte("old"), "old/1:1@s%u", "old/1:2@s%u")
	fresh := pull(t, r, []byte("fresh"), "fresh/1:1@s%u")
	meta := pull(t, r, []byte("meta"), "meta/1:1@s%u")
	ago := time.Now().Add(-100 * 24 * time.Hour)
	for _, path := range []string{
		r.Paths(old).Image, filepath.Join(r.Paths(old).Meta, "env.json"),
		r.Paths(fresh).Image, filepath.Join(r.Paths(meta).Meta, "env.json"),
	} {
		if err := os.Chtimes(path, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(r.Paths(meta).Image); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(t.Context(), VerifyOptions{}); err != nil { // does not count as use
		t.Fatal(err)
	}
	const limit = 90 * 24 * time.Hour
	for _, dry := range []bool{true, false} {
		gone, err := r.Prune(t.Context(), PruneOptions{Dry: dry, Unused: limit})
		if err != nil || len(gone) != 1 || gone[0].Kind != LeftUnused || len(gone[0].Labels) != 2 || gone[0].LastUsed == nil {
			t.Fatalf("dry %v: %+v, %v", dry, gone, err)
		}
		if exists(r.Paths(old).Image) != dry {
			t.Errorf("dry %v: the unused image", dry)
		}
	}
	if got := find(t, r, "", false); len(got) != 2 {
		t.Errorf("labels: %q", got)
	}
}

func TestDu(t *testing.T) {
	r := open(t, t.TempDir())
	small := pull(t, r, []byte("small"), "small/1:1@s%u")
	large := pull(t, r, make([]byte, 10000), "large/1:1@s%u")
	all, err := r.Du(t.Context())
	if err != nil || len(all) != 2 || all[0].Digest != large || all[1].Digest != small || all[0].Bytes < 10000 || all[0].LastUsed.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
}
