package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"uenv-ci.dev/internal/proc"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func newDir(t *testing.T, base string) *Dir {
	t.Helper()
	d, err := New(base, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Remove() })
	return d
}

// fill puts a read-only directory with a file into d, and makes something outside.
func fill(t *testing.T, d *Dir, outside string) {
	t.Helper()
	closed := filepath.Join(d.Path(), "closed")
	err := errors.Join(
		os.Mkdir(closed, 0o700), os.WriteFile(filepath.Join(closed, "file"), nil, 0o400), os.Chmod(closed, 0o500),
		d.Note(outside+"/a b"), os.Mkdir(outside+"/a b", 0o700),
		d.Note(outside+"/link"), os.Symlink(d.Path(), outside+"/link"),
		d.Note(outside+"/used"), os.Mkdir(outside+"/used", 0o700), os.WriteFile(outside+"/used/file", nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemove(t *testing.T) {
	base, outside := t.TempDir(), t.TempDir()
	d := newDir(t, base)
	path := d.Path()
	fill(t, d, outside)
	if err := errors.Join(d.Remove(), d.Remove()); err != nil {
		t.Error(err)
	}
	if exists(path) || exists(outside+"/a b") || exists(outside+"/link") {
		t.Error("something is left")
	}
	if !exists(outside + "/used/file") {
		t.Error("what others put into a directory is gone")
	}
}

func TestTheLivingAreNotSwept(t *testing.T) {
	base := t.TempDir()
	first := newDir(t, base)
	second := newDir(t, base)
	if !exists(first.Path()) || first.Path() == second.Path() {
		t.Error("a directory with an owner was swept")
	}
}

// TestKilled runs itself as a process that is killed while it has a directory.
func TestKilled(t *testing.T) {
	if base := os.Getenv("UENV_CI_TEST_SCRATCH"); base != "" {
		d := newDir(t, base)
		fill(t, d, os.Getenv("OUTSIDE"))
		fmt.Println(d.Path())
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	base, outside := t.TempDir(), t.TempDir()
	_, err := proc.Cmd{
		Path: os.Args[0], Args: []string{"-test.run=^TestKilled$"},
		Env: append(os.Environ(), "UENV_CI_TEST_SCRATCH="+base, "OUTSIDE="+outside),
	}.Output(t.Context())
	var exit *proc.ExitError
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Fatal(err)
	}
	left := func() []string {
		found, _ := filepath.Glob(filepath.Join(Root(base), "*", filesName))
		return found
	}
	if len(left()) != 1 || !exists(outside+"/link") {
		t.Fatalf("the killed process left %q", left())
	}
	d := newDir(t, base)
	if got := left(); len(got) != 1 || got[0] != d.Path() || exists(outside+"/link") {
		t.Errorf("not swept: %q", got)
	}
}

// TestNotOurs refuses a parent that somebody else prepared.
func TestNotOurs(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"open to others": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"a link":         func(dir string) error { return os.Symlink(os.TempDir(), dir) },
		"a file":         func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		base := t.TempDir()
		if err := prepare(filepath.Dir(Root(base))); err != nil {
			t.Fatal(err)
		}
		if _, err := New(base, nil); err == nil {
			t.Errorf("%s: a directory was made", name)
		}
	}
}

// What another host has in a shared directory is not swept: its locks may not hold here.
func TestSharedBetweenHosts(t *testing.T) {
	base := t.TempDir()
	own, err := SharedRoot(base)
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(own, "1")
	others := filepath.Join(Root(base)+"-another", "1")
	for _, dir := range []string{dead, others} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filesName), 0o700), os.WriteFile(filepath.Join(dir, lockName), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := NewShared(base, nil)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(filepath.Dir(d.Path())) != own || exists(dead) || !exists(others) {
		t.Errorf("%s: the dead is there: %v, the other host's: %v", d.Path(), exists(dead), exists(others))
	}
	if err := d.Remove(); err != nil || exists(d.Path()) {
		t.Errorf("removed: %v", err)
	}
}

// Where everybody can rename what is ours, its privacy is worth nothing.
func TestSharedWithEverybody(t *testing.T) {
	base := t.TempDir()
	for mode, safe := range map[os.FileMode]bool{0o777: false, 0o777 | os.ModeSticky: true, 0o775: true} {
		if err := os.Chmod(base, mode); err != nil {
			t.Fatal(err)
		}
		d, err := NewShared(base, nil)
		if (err == nil) != safe {
			t.Errorf("%v: %v", mode, err)
		}
		if err == nil {
			err = d.Remove()
		}
		if safe && err != nil {
			t.Error(err)
		}
	}
}
