package localrepo

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

var testDate = time.Date(2026, 11, 21, 10, 30, 5, 0, time.UTC)

func open(t *testing.T, dir string) *Repo {
	t.Helper()
	r, err := Open(t.Context(), dir, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// manifest returns the manifest of an image with the given content.
func manifest(t *testing.T, content []byte) []byte {
	t.Helper()
	data, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers: []ocispec.Descriptor{{
			MediaType: ocispec.MediaTypeImageLayer, Size: int64(len(content)), Digest: digest.FromBytes(content),
			Annotations: map[string]string{ocispec.AnnotationTitle: imageName},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pull stores content under its manifest's digest and labels it.
func pull(t *testing.T, r *Repo, content []byte, labels ...string) digest.Digest {
	t.Helper()
	m := manifest(t, content)
	d := digest.FromBytes(m)
	if err := store(t.Context(), r, d, content, Content{Manifest: m, Verified: digest.FromBytes(content)}); err != nil {
		t.Fatal(err)
	}
	for _, text := range labels {
		if err := r.Add(t.Context(), record(t, text, d, len(content))); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func store(ctx context.Context, r *Repo, d digest.Digest, content []byte, c Content) error {
	lock, err := r.Lock(ctx, d)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	s, err := r.Stage(lock)
	if err != nil {
		return err
	}
	defer s.Abort()
	meta := filepath.Join(s.Dir(), metaName)
	err = errors.Join(
		os.WriteFile(s.Image(), content, 0o600),
		os.Mkdir(meta, 0o700),
		os.WriteFile(filepath.Join(meta, "env.json"), []byte(`{"mount":"/user-environment"}`), 0o600))
	if err != nil {
		return err
	}
	return s.Commit(ctx, c)
}

func record(t *testing.T, text string, d digest.Digest, size int) Record {
	t.Helper()
	return Record{Label: parse(t, text), Digest: d, Date: testDate, Size: int64(size)}
}

func parse(t *testing.T, text string) label.Label {
	t.Helper()
	l, err := label.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func find(t *testing.T, r *Repo, pattern string, prefix bool) []string {
	t.Helper()
	found, err := r.Find(t.Context(), parse(t, pattern), prefix)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{}
	for _, rec := range found {
		texts = append(texts, rec.Label.String())
	}
	return texts
}

func TestPullFindRemove(t *testing.T) {
	r := open(t, t.TempDir())
	content := []byte("hsqs and so on")
	d := pull(t, r, content, "hello/1.0:v1@eiger%zen2", "hello/1.0:v2@eiger%zen2", "build::world/2:1@daint%gh200")
	other := pull(t, r, []byte("another"), "hello/0.9:v1@eiger%zen2")

	rows, err := r.Find(t.Context(), parse(t, "hello/1.0:v1"), false)
	if err != nil || len(rows) != 1 {
		t.Fatalf("found %v, %v", rows, err)
	}
	want := Record{Label: parse(t, "hello/1.0:v1@eiger%zen2"), Digest: d, ID: d.Encoded()[:16], Date: testDate, Size: int64(len(content))}
	if rows[0] != want {
		t.Errorf("got %+v, want %+v", rows[0], want)
	}
	for pattern, want := range map[string][]string{
		"":                     {"hello/0.9:v1@eiger%zen2", "hello/1.0:v1@eiger%zen2", "hello/1.0:v2@eiger%zen2", "world/2:1@daint%gh200"},
		"hel":                  {},
		"@daint":               {"world/2:1@daint%gh200"},
		"@*%zen2":              {"hello/0.9:v1@eiger%zen2", "hello/1.0:v1@eiger%zen2", "hello/1.0:v2@eiger%zen2"},
		"deploy::hello/0.9":    {"hello/0.9:v1@eiger%zen2"},
		other.Encoded():        {"hello/0.9:v1@eiger%zen2"},
		other.String():         {"hello/0.9:v1@eiger%zen2"},
		ID(d):                  {"hello/1.0:v1@eiger%zen2", "hello/1.0:v2@eiger%zen2", "world/2:1@daint%gh200"},
		ID(d) + "@eiger":       {"hello/1.0:v1@eiger%zen2", "hello/1.0:v2@eiger%zen2"},
		ID(d)[:15]:             {},
		other.Encoded() + "/1": {},
	} {
		if got := find(t, r, pattern, false); !slices.Equal(got, want) {
			t.Errorf("%q: found %q, want %q", pattern, got, want)
		}
	}
	if got := find(t, r, "HEL", true); len(got) != 3 {
		t.Errorf("by prefix: found %q", got)
	}

	removed, err := r.RemoveLabel(t.Context(), parse(t, "hello/1.0:v1@eiger%zen2"))
	if err != nil || removed.Files || len(removed.Records) != 1 {
		t.Fatalf("first label: %+v, %v", removed, err)
	}
	if _, err := os.Stat(r.Paths(d).Image); err != nil {
		t.Errorf("the image went with its first label: %v", err)
	}
	if _, err := r.RemoveLabel(t.Context(), parse(t, "hello/1.0:v2@eiger%zen2")); err != nil {
		t.Fatal(err)
	}
	removed, err = r.RemoveLabel(t.Context(), parse(t, "world/2:1@daint%gh200"))
	if err != nil || !removed.Files || removed.Bytes < int64(len(content)) {
		t.Fatalf("last label: %+v, %v", removed, err)
	}
	if _, err := os.Stat(r.Paths(d).Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the image is still there: %v", err)
	}
	if _, err := r.RemoveDigest(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveDigest(t.Context(), other); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a second removal: %v", err)
	}
	if got := count(t, r, "images") + count(t, r, "uenv") + count(t, r, "tags"); got != 0 {
		t.Errorf("%d rows are left", got)
	}
}

func count(t *testing.T, r *Repo, table string) (n int) {
	t.Helper()
	if err := r.db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLookup(t *testing.T) {
	r := open(t, t.TempDir())
	pull(t, r, []byte("1"), "hello/1.0:v1@eiger%zen2", "hello/1.0:v1@daint%zen2")
	pull(t, r, []byte("2"), "hello/1.1:v1@eiger%zen2")
	if found, err := r.Lookup(t.Context(), parse(t, "hello/1.0")); err != nil || len(found) != 2 {
		t.Errorf("two labels of one image: %v, %v", found, err)
	}
	if _, err := r.Lookup(t.Context(), parse(t, "hello")); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "hello/1.1:v1@eiger%zen2") {
		t.Errorf("two images: %v", err)
	}
	if _, err := r.Lookup(t.Context(), parse(t, "none")); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("none: %v", err)
	}
}

func TestRetagKeepsTheOtherImageUntilPrune(t *testing.T) {
	var told []string
	r := open(t, t.TempDir())
	r.events = func(e event.Event) { told = append(told, e.Message) }
	before := pull(t, r, []byte("1"), "hello/1.0:v1@eiger%zen2")
	after := pull(t, r, []byte("2"), "hello/1.0:v1@eiger%zen2")
	found, err := r.Find(t.Context(), label.Label{}, false)
	if err != nil || len(found) != 1 || found[0].Digest != after {
		t.Errorf("found %v, %v", found, err)
	}
	if _, err := os.Stat(r.Paths(before).Image); err != nil {
		t.Errorf("the former image: %v", err)
	}
	if !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, ID(before)) }) {
		t.Errorf("nobody was told: %q", told)
	}
}

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

func TestAddRefusesWhatBreaksClients(t *testing.T) {
	r := open(t, t.TempDir())
	d := pull(t, r, []byte("x"))
	good := record(t, "hello/1.0:v1@eiger%zen2", d, 1)
	for name, change := range map[string]func(*Record){
		"date 1980": func(rec *Record) { rec.Date = time.Unix(315532800, 0) },
		"date 2051": func(rec *Record) { rec.Date = time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no tag":    func(rec *Record) { rec.Label.Tag = "" },
		"wildcard":  func(rec *Record) { rec.Label.System = "*" },
		"path":      func(rec *Record) { rec.Label.Name = "../x" },
		"quote":     func(rec *Record) { rec.Label.Name = "x'; DROP TABLE tags; --" },
		"digest":    func(rec *Record) { rec.Digest = "sha256:abc" },
		"no such":   func(rec *Record) { rec.Digest = digest.FromString("other") },
		"algorithm": func(rec *Record) { rec.Digest = digest.Digest("sha512:" + strings.Repeat("0", 128)) },
		"size":      func(rec *Record) { rec.Size = -1 },
	} {
		rec := good
		change(&rec)
		if err := r.Add(t.Context(), good, rec); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := count(t, r, "tags"); n != 0 {
		t.Errorf("%d labels were added", n)
	}
}

func TestOpenErrors(t *testing.T) {
	ctx := t.Context()
	check := func(name string, err error, kind fault.Kind, parts ...string) {
		t.Helper()
		if err == nil || fault.KindOf(err) != kind || fault.HintOf(err) == "" {
			t.Errorf("%s: kind %d, hint %q, error %v", name, fault.KindOf(err), fault.HintOf(err), err)
			return
		}
		for _, p := range parts {
			if !strings.Contains(err.Error()+fault.HintOf(err), p) {
				t.Errorf("%s: no %q in %v", name, p, err)
			}
		}
	}
	_, err := Open(ctx, filepath.Join(t.TempDir(), "none"), Options{})
	check("missing", err, fault.NotFound, "none")
	for _, odd := range []string{"a,b", "a:b", "a b", "a\tb"} {
		_, err = Open(ctx, filepath.Join(t.TempDir(), odd), Options{Create: true})
		check(odd, err, fault.Usage)
	}

	damaged := t.TempDir()
	os.WriteFile(filepath.Join(damaged, databaseName), []byte(strings.Repeat("this is no database ", 500)), 0o644)
	_, err = Open(ctx, damaged, Options{})
	check("damaged", err, fault.Invalid, "damaged")

	dir := t.TempDir()
	r := open(t, dir)
	d := pull(t, r, []byte("x"))
	other, err := sql.Open("sqlite", filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	locked, err := Open(ctx, dir, Options{BusyTimeout: time.Millisecond})
	if err == nil {
		err = locked.Add(ctx, record(t, "a/1:1@a%b", d, 1))
		locked.Close()
	}
	check("locked", err, fault.Failure, "locked", dir)
}

func TestForeignDatabase(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE images (x)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	for _, o := range []Options{{}, {Create: true}, {ReadOnly: true}} {
		if _, err := Open(t.Context(), dir, o); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestOlderRepository works on one without triggers, with a date that the client
// cannot read.
func TestOlderRepository(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	for _, trigger := range []string{"delete_orphan_uenv", "delete_orphan_image"} {
		if _, err := r.db.Exec("DROP TRIGGER " + trigger); err != nil {
			t.Fatal(err)
		}
	}
	d := pull(t, r, []byte("x"), "old/1:1@a%b", "new/1:1@a%b")
	if _, err := r.db.Exec("UPDATE images SET date = 'yesterday', id = NULL"); err != nil {
		t.Fatal(err)
	}
	found, err := r.Find(t.Context(), label.Label{}, false)
	if err != nil || len(found) != 2 || !found[0].Date.IsZero() || found[0].ID != ID(d) {
		t.Fatalf("found %+v, %v", found, err)
	}
	for _, text := range []string{"old/1:1@a%b", "new/1:1@a%b"} {
		if _, err := r.RemoveLabel(t.Context(), parse(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, r, "images") + count(t, r, "uenv"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestDates(t *testing.T) {
	for text, want := range map[string]string{
		"2024-07-01 12:34:56":       "2024-07-01 12:34:56",
		"2024-07-01T12:34:56":       "2024-07-01 12:34:56",
		"2024-07-01T12:34:56.789Z":  "2024-07-01 12:34:56",
		"2024-07-01T12:34:56Z":      "2024-07-01 12:34:56",
		"2024-7-1 2:4:6":            "2024-07-01 02:04:06",
		"2024-07-01":                "2024-07-01 00:00:00",
		"2024-02-30 00:00:00":       "",
		"yesterday":                 "",
		"":                          "",
		"2024-07-01 12:34:56 +0200": "",
	} {
		got, ok := parseDate(text)
		if ok != (want != "") || ok && got.Format(dateLayout) != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
}

// TestManyAddToOneNewRepository has many open, create and fill one repository at
// once.
func TestManyAddToOneNewRepository(t *testing.T) {
	const workers, images = 8, 5
	dir := filepath.Join(t.TempDir(), "repo")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r, err := Open(t.Context(), dir, Options{Create: true, BusyTimeout: time.Minute})
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			for i := range images {
				content := fmt.Appendf(nil, "image %d", i) // the same for all
				m := manifest(t, content)
				d := digest.FromBytes(m)
				err := store(t.Context(), r, d, content, Content{Manifest: m})
				if err == nil {
					err = r.Add(t.Context(), record(t, fmt.Sprintf("n%d/1:%d@s%%u", i, w), d, len(content)))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r := open(t, dir)
	found, err := r.Find(t.Context(), label.Label{}, false)
	if err != nil || len(found) != workers*images {
		t.Errorf("%d labels, %v", len(found), err)
	}
	if n := count(t, r, "images"); n != images {
		t.Errorf("%d images", n)
	}
}

func TestLockWaitsAndCanBeCancelled(t *testing.T) {
	waiting := make(chan struct{}, 1)
	dir := t.TempDir()
	r := open(t, dir)
	d := digest.FromString("x")
	lock, err := r.Lock(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	second.events = func(event.Event) { waiting <- struct{}{} }
	if l, err := second.TryLock(t.Context(), d); l != nil || err != nil {
		t.Errorf("TryLock: %v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { _, err := second.Lock(ctx, d); result <- err }()
	<-waiting
	cancel()
	if err := <-result; fault.KindOf(err) != fault.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
	go func() { _, err := second.Lock(t.Context(), d); result <- err }()
	<-waiting
	// A holder may remove the file; the waiter must not hold a nameless one.
	if err := os.Remove(r.Paths(d).Lock); err != nil {
		t.Fatal(err)
	}
	lock.Unlock()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if l, err := r.TryLock(t.Context(), d); l != nil || err != nil {
		t.Errorf("two hold the lock: %v, %v", l, err)
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

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	d := pull(t, open(t, dir), []byte("x"), "hello/1.0:v1@eiger%zen2")
	if err := os.Chmod(filepath.Join(dir, databaseName), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o755)
	r, err := Open(t.Context(), dir, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := find(t, r, "", false); len(got) != 1 {
		t.Errorf("found %q", got)
	}
	if err := r.Add(t.Context(), record(t, "a/1:1@a%b", d, 1)); err == nil {
		t.Error("added to a repository open for reading")
	}
	if _, err := r.Lock(t.Context(), d); err == nil {
		t.Error("locked in a repository open for reading")
	}
	if os.Geteuid() == 0 {
		return // root may write all the same
	}
	w, err := Open(t.Context(), dir, Options{})
	if err == nil {
		defer w.Close()
		err = w.Add(t.Context(), record(t, "a/1:1@a%b", d, 1))
	}
	if fault.KindOf(err) != fault.Failure || fault.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, fault.HintOf(err))
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
