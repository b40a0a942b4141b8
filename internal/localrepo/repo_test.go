package localrepo

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		label.ID(d):            {"hello/1.0:v1@eiger%zen2", "hello/1.0:v2@eiger%zen2", "world/2:1@daint%gh200"},
		label.ID(d) + "@eiger": {"hello/1.0:v1@eiger%zen2", "hello/1.0:v2@eiger%zen2"},
		label.ID(d)[:15]:       {},
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

// A label that another program gives an image while a removal looks for others.
func TestRemovalSeesLabelsThatCome(t *testing.T) {
	r := open(t, t.TempDir())
	d := pull(t, r, []byte("image"), "hello/1.0:v1@eiger%zen2")
	other, err := Open(t.Context(), r.dir, Options{BusyTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	late := record(t, "hello/1.0:v2@eiger%zen2", d, 5)
	var added error
	removed, err := r.remove(t.Context(), d, func(rec Record) bool {
		added = other.Add(t.Context(), late)
		return rec.Label.Tag == "v1"
	})
	if err != nil || len(removed.Records) != 1 {
		t.Fatalf("%+v, %v", removed, err)
	}
	if labels := find(t, r, "", false); (added == nil) != (len(labels) == 1) || removed.Files != (len(labels) == 0) {
		t.Errorf("added: %v; labels %v, files removed: %v", added, labels, removed.Files)
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
	if !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, label.ID(before)) }) {
		t.Errorf("nobody was told: %q", told)
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

// On a full disk SQLite takes a transaction back by itself: that is not told besides.
func TestTransactionThatIsTakenBack(t *testing.T) {
	r := open(t, t.TempDir())
	full := errors.New("database or disk is full")
	err := transact(t.Context(), r.db, func(tx *sql.Tx) error {
		if _, err := tx.Exec("ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		return full
	})
	if err != full {
		t.Errorf("got %v", err)
	}
	pull(t, r, []byte("x"), "hello/1.0:v1@demo%amd64")
}
