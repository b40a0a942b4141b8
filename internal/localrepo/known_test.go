package localrepo

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// What is remembered of a file holds until the file changes, and not longer.
func TestKnownDigest(t *testing.T) {
	dir := t.TempDir()
	file, notes := filepath.Join(dir, "file"), filepath.Join(dir, "notes")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(d digest.Digest) {
		t.Helper()
		if got, err := KnownDigest(t.Context(), file, notes, nil); err != nil || got != d {
			t.Errorf("%s, not %s: %v", got, d, err)
		}
	}
	write("one")
	want(digest.FromString("one"))
	said := digest.FromString("as the writer says")
	RememberDigest(file, notes, said)
	want(said) // it was not read

	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // a tick of the clock of files
	write("two")
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	want(digest.FromString("two")) // same size and time: the time of change tells

	RememberDigest(file, notes, said)
	for _, name := range []string{"not JSON", `{"Digest":"sha256:00"}`} {
		if err := os.WriteFile(noteFile(file, notes), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		want(digest.FromString("two"))
	}
	RememberDigest(file, "", said)
	if got, err := KnownDigest(t.Context(), file, "", nil); err != nil || got != digest.FromString("two") {
		t.Errorf("without notes: %s, %v", got, err)
	}
}

// Notes of files that are gone or changed do not pile up; others stay.
func TestNotesAreTidied(t *testing.T) {
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes")
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"stays", "goes", "changes"} {
		if err := os.WriteFile(file(name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		RememberDigest(file(name), notes, digest.FromString(name))
	}
	if err := os.Remove(file("goes")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file("changes"), []byte("another size"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(notes, "not-a-note")
	if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	RememberDigest(file("stays"), notes, digest.FromString("stays"))
	for path, there := range map[string]bool{noteFile(file("stays"), notes): true, noteFile(file("goes"), notes): false, noteFile(file("changes"), notes): false, other: true} {
		if _, err := os.Stat(path); (err == nil) != there {
			t.Errorf("%s: %v", path, err)
		}
	}
}
