package dirfd_test

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/dirfd"
)

func open(t *testing.T, dir string) *dirfd.Dir {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := dirfd.DirOf(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestCreateAndRead(t *testing.T) {
	at := t.TempDir()
	dir := open(t, at)
	f, err := dir.Create("x", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("content ", 20_000)
	if _, err := io.WriteString(f, text); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Chmod(0o754), f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if _, err := dir.Create("x", 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created again: %v", err)
	}
	in, err := dir.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	got, err := io.ReadAll(in)
	if err != nil || string(got) != text || in.Perm() != 0o754 {
		t.Errorf("read %d bytes, %v, mode %v", len(got), err, in.Perm())
	}
}

func TestCreateIn(t *testing.T) {
	at := t.TempDir()
	dir := open(t, at)
	if err := errors.Join(dir.Mkdir("sub"), os.Symlink("sub", filepath.Join(at, "link"))); err != nil {
		t.Fatal(err)
	}
	f, err := dir.CreateIn("sub", "x", 0o640)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip("there is no openat2 here")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(at, "sub", "x")); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := dir.CreateIn("sub", "x", 0o640); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created again: %v", err)
	}
	for _, name := range []string{"link", ".", "..", "", "/", "none", "sub/.."} {
		if f, err := dir.CreateIn(name, "y", 0o640); err == nil {
			f.Close()
			t.Errorf("created a file in %q", name)
		}
		if f, err := dir.CreateIn("sub", name+"/y", 0o640); err == nil {
			f.Close()
			t.Errorf("created %q", name+"/y")
		}
	}
}

// What a file has when it was opened is what is read: no more, and not less
// without an error.
func TestReadOfAChangingFile(t *testing.T) {
	at := t.TempDir()
	name := filepath.Join(at, "x")
	for content, want := range map[string]error{"longer than it was": nil, "cut": io.ErrUnexpectedEOF} {
		if err := os.WriteFile(name, []byte("as it was"), 0o644); err != nil {
			t.Fatal(err)
		}
		in, err := open(t, at).Open("x")
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if !errors.Is(err, want) || len(got) > len("as it was") {
			t.Errorf("%s: read %q, %v", content, got, err)
		}
	}
}

func TestEntries(t *testing.T) {
	at := t.TempDir()
	var want []string
	for i := range 1000 { // more than one call lists
		name := strings.Repeat("n", 1+i%50) + string(rune('a'+i/50))
		want = append(want, name)
		if err := os.WriteFile(filepath.Join(at, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := open(t, at).Entries()
	var got []string
	for _, e := range entries {
		got = append(got, e.Name)
		if e.Kind != dirfd.Regular {
			t.Errorf("%s: kind %v", e.Name, e.Kind)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%d names, %v; want %d", len(got), err, len(want))
	}
}

func TestKinds(t *testing.T) {
	at := t.TempDir()
	dir := open(t, at)
	err := errors.Join(dir.Mkdir("dir"), os.WriteFile(filepath.Join(at, "file"), nil, 0o600),
		os.Symlink("file", filepath.Join(at, "link")), unix.Mkfifo(filepath.Join(at, "pipe"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := dir.Entries()
	want := map[string]dirfd.Kind{"dir": dirfd.Directory, "file": dirfd.Regular, "link": dirfd.Other, "pipe": dirfd.Other}
	got := map[string]dirfd.Kind{}
	for _, e := range entries {
		got[e.Name] = e.Kind
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, name := range []string{"dir", "link", "pipe"} { // the pipe without waiting
		if f, err := dir.Open(name); err == nil {
			f.Close()
			t.Errorf("opened %s as a file", name)
		}
	}
	for _, name := range []string{"file", "link", "pipe"} {
		if f, err := dir.Dir(name); err == nil {
			f.Close()
			t.Errorf("opened %s as a directory", name)
		}
	}
	below, err := dir.Dir("dir")
	if err != nil {
		t.Fatal(err)
	}
	defer below.Close()
	for _, c := range []struct {
		a, b *dirfd.Dir
		same bool
	}{{dir, open(t, at), true}, {dir, below, false}} {
		if same, err := c.a.Same(c.b); err != nil || same != c.same {
			t.Errorf("same: %v, %v", same, err)
		}
	}
}

// No name leads out of the directory: not by a link, not by its text.
func TestStaysInside(t *testing.T) {
	at := t.TempDir()
	if err := os.Symlink(os.TempDir(), filepath.Join(at, "link")); err != nil {
		t.Fatal(err)
	}
	dir := open(t, at)
	if err := dir.Mkdir("sub"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"link", "..", ".", "", "/etc", "sub/..", "sub/../..", "a\x00b"} {
		if f, err := dir.Open(name); err == nil {
			f.Close()
			t.Errorf("opened %q", name)
		}
		if f, err := dir.Create(name, 0o600); err == nil {
			f.Close()
			t.Errorf("created %q", name)
		}
		if err := dir.Mkdir(name); err == nil {
			t.Errorf("made %q", name)
		}
	}
}
