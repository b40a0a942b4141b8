package localrepo

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

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
	if err != nil || len(found) != 2 || !found[0].Date.IsZero() || found[0].ID != label.ID(d) {
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

// TestFullDisk fills the file system that the repository is on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	r := open(t, filepath.Join(dir, "repo"))
	d := pull(t, r, []byte("x"), "hello/1:1@s%u")
	full, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = full.Write(block)
	}

	big := make([]byte, 100)
	m := manifest(t, big)
	stageErr := store(t.Context(), r, digest.FromBytes(m), big, Content{Manifest: m})
	var addErr error
	for i := 0; i < 1000 && addErr == nil; i++ { // there may be room in the database's pages
		addErr = r.Add(t.Context(), record(t, fmt.Sprintf("n%d/1:1@s%%u", i), d, 1))
	}
	if stageErr == nil {
		t.Error("an image was stored")
	}
	if fault.KindOf(addErr) != fault.Failure || !strings.Contains(fault.HintOf(addErr), "full") {
		t.Errorf("hint %q, error %v", fault.HintOf(addErr), addErr)
	}
	if err := os.Remove(full.Name()); err != nil {
		t.Fatal(err)
	}
	full.Close()
	findings, err := r.Verify(t.Context(), VerifyOptions{})
	if err != nil || len(findings) != 1 || findings[0].Condition != Complete {
		t.Errorf("afterwards: %+v, %v", findings, err)
	}
	pull(t, r, big, "big/1:1@s%u")
}
