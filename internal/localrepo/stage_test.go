package localrepo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
)

func TestCommitRefusesWrongBytes(t *testing.T) {
	content := []byte("hsqs content")
	m := manifest(t, content)
	of := digest.FromBytes
	for name, c := range map[string]struct {
		digest  digest.Digest
		content []byte
		Content
	}{
		"flipped":            {of(m), []byte("hsqs cONtent"), Content{Manifest: m}},
		"truncated":          {of(m), content[:5], Content{Manifest: m}},
		"size lies":          {of(m), content[:5], Content{Manifest: m, Verified: of(content)}},
		"other manifest":     {of([]byte("x")), content, Content{Manifest: m}},
		"no manifest":        {of(m), content, Content{}},
		"manifest no JSON":   {of([]byte("<html>")), content, Content{Manifest: []byte("<html>")}},
		"manifest no layers": {of([]byte("{}")), content, Content{Manifest: []byte("{}")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, t.TempDir())
			err := store(t.Context(), r, c.digest, c.content, c.Content)
			if fault.KindOf(err) != fault.Invalid {
				t.Errorf("error %v", err)
			}
			left, err := filepath.Glob(filepath.Join(r.images(), "*"))
			if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], ".lock") {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

func TestCommitReplacesABrokenImage(t *testing.T) {
	r := open(t, t.TempDir())
	content := []byte("hsqs content")
	d := pull(t, r, content, "hello/1.0:v1@eiger%zen2")
	if err := os.WriteFile(r.Paths(d).Image, content[:3], 0o644); err != nil {
		t.Fatal(err)
	}
	pull(t, r, content)
	got, err := os.ReadFile(r.Paths(d).Image)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %q, %v", got, err)
	}
	entries, err := os.ReadDir(r.images())
	if err != nil || len(entries) != 2 {
		t.Errorf("entries: %v, %v", entries, err)
	}
}

func TestAddedImageIsItsOwnDigest(t *testing.T) {
	r := open(t, t.TempDir())
	content := []byte("added")
	if err := store(t.Context(), r, digest.FromBytes(content), content, Content{}); err != nil {
		t.Fatal(err)
	}
}

// TestOnlyMetadata stores metadata without an image, and then beside one.
func TestOnlyMetadata(t *testing.T) {
	r := open(t, t.TempDir())
	content := []byte("hsqs content")
	m := manifest(t, content)
	d := digest.FromBytes(m)
	metaOnly := func() {
		t.Helper()
		lock, err := r.Lock(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Unlock()
		s, err := r.Stage(lock)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abort()
		if err := errors.Join(os.Mkdir(filepath.Join(s.Dir(), metaName), 0o700), s.Commit(t.Context(), Content{Manifest: m})); err != nil {
			t.Fatal(err)
		}
	}
	metaOnly()
	if _, err := os.Stat(r.Paths(d).Image); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an image out of nowhere: %v", err)
	}
	if err := r.Add(t.Context(), record(t, "hello/1.0:v1@eiger%zen2", d, len(content))); err != nil {
		t.Error(err)
	}
	pull(t, r, content)
	metaOnly()
	if got, err := os.ReadFile(r.Paths(d).Image); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the image is gone: %q, %v", got, err)
	}
}

func TestSharedRepositoryKeepsGroupAndMode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shared")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	d := pull(t, r, []byte("x"))
	p := r.Paths(d)
	for path, want := range map[string]os.FileMode{
		filepath.Join(dir, databaseName):  0o660,
		r.images():                        0o770 | os.ModeSetgid | os.ModeDir,
		p.Dir:                             0o770 | os.ModeSetgid | os.ModeDir,
		p.Meta:                            0o770 | os.ModeSetgid | os.ModeDir,
		p.Image:                           0o660,
		p.Manifest:                        0o660,
		filepath.Join(p.Meta, "env.json"): 0o660,
		p.Lock:                            0o660,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s: mode %v, want %v", path, info.Mode(), want)
		}
	}
}

// What is private stays so when it is fetched again; others see what else is there.
func TestPrivateImages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "public")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	public := pull(t, r, []byte("public"))
	content := []byte("private")
	m := manifest(t, content)
	d := digest.FromBytes(m)
	for round := range 2 {
		lock, err := r.Lock(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Stage(lock)
		if err == nil && round == 0 {
			err = s.Private()
		}
		if info, statErr := os.Stat(s.Dir()); err != nil || statErr != nil || info.Mode().Perm() != 0o750 {
			t.Fatalf("%v %v %v", err, statErr, info)
		}
		err = errors.Join(os.WriteFile(s.Image(), content, 0o644), os.Mkdir(filepath.Join(s.Dir(), "meta"), 0o755))
		if err := errors.Join(err, s.Commit(t.Context(), Content{Manifest: m})); err != nil {
			t.Fatal(err)
		}
		lock.Unlock()
		p := r.Paths(d)
		for path, want := range map[string]os.FileMode{
			r.images(): 0o755, p.Dir: 0o750, p.Meta: 0o750, p.Image: 0o640, p.Manifest: 0o640, r.Paths(public).Dir: 0o755, r.Paths(public).Image: 0o644,
		} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("round %d: %s: %v %v, want %v", round, path, info, err, want)
			}
		}
	}
}

// TestInterruptedDownloadIsKept has a pull end early and another take up what it
// has left.
func TestInterruptedDownloadIsKept(t *testing.T) {
	r := open(t, t.TempDir())
	content := []byte("hsqs content")
	m := manifest(t, content)
	d := digest.FromBytes(m)
	lock, err := r.Lock(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	first, err := r.Stage(lock)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{imageName + ".partial", "meta.txt"} {
		if err := os.WriteFile(filepath.Join(first.Dir(), name), content[:4], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(first.Dir(), metaName), 0o700), os.Symlink("/etc/passwd", first.Image())); err != nil {
		t.Fatal(err)
	}
	if n := first.Staged(); n <= 0 {
		t.Errorf("%d bytes are staged", n)
	}
	first.Keep()
	first.Abort()

	second, err := r.Stage(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Abort()
	entries, err := os.ReadDir(second.Dir())
	if err != nil || len(entries) != 1 || entries[0].Name() != imageName+".partial" {
		t.Fatalf("kept: %v, %v", entries, err)
	}
	if err := os.WriteFile(second.Image(), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second.Commit(t.Context(), Content{Manifest: m}); err != nil {
		t.Fatal(err)
	}
	entries, err = os.ReadDir(r.Paths(d).Dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("stored: %v, %v", entries, err)
	}
}

func TestResetEmptiesTheStage(t *testing.T) {
	r := open(t, t.TempDir())
	d := digest.FromString("x")
	leave(t, r, d)
	lock, err := r.Lock(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	s, err := r.Stage(lock)
	if err != nil {
		t.Fatal(err)
	}
	if !exists(s.Image()) {
		t.Error("what was there is gone at once")
	}
	if err := s.Reset(); err != nil || exists(s.Image()) || !exists(s.Dir()) {
		t.Errorf("after Reset: %v", err)
	}
	s.Abort()
	if exists(s.Dir()) {
		t.Error("Abort left the stage")
	}
}
