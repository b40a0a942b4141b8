package dirfd_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/dirfd"
)

func open(t *testing.T, dir string) *dirfd.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := dirfd.FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestCreateAndRead(t *testing.T) {
	at := t.TempDir()
	dir := open(t, at)
	f, err := dir.Create("x")
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
	if _, err := dir.Create("x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created again: %v", err)
	}
	in, err := dir.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	got, err := io.ReadAll(in)
	if err != nil || string(got) != text || in.Perm() != 0o754 || !in.IsRegular() || in.IsDir() {
		t.Errorf("read %d bytes, %v, mode %v", len(got), err, in.Perm())
	}
	again, err := dir.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Same(in) || again.Same(dir) {
		t.Error("files are mixed up")
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

func TestNames(t *testing.T) {
	at := t.TempDir()
	var want []string
	for i := range 1000 { // more than one call lists
		name := strings.Repeat("n", 1+i%50) + string(rune('a'+i/50))
		want = append(want, name)
		if err := os.WriteFile(filepath.Join(at, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := open(t, at).Names()
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%d names, %v; want %d", len(got), err, len(want))
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
		if f, err := dir.Create(name); err == nil {
			f.Close()
			t.Errorf("created %q", name)
		}
		if err := dir.Mkdir(name); err == nil {
			t.Errorf("made %q", name)
		}
	}
}
