package atomicfile

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// TestSweep: what a dead writer left goes away, and nothing else does.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	alive, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Abort()
	for _, name := range []string{".f.tmp-123", ".f.tmp-x1", ".g.tmp-123", "f.tmp-123"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("f.tmp-123", filepath.Join(dir, ".f.tmp-7")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, ".f.tmp-8"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteBytes(path, 0o600, []byte("new")); err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Base(alive.Name()), ".f.tmp-7", ".f.tmp-8", ".f.tmp-x1", ".g.tmp-123", "f", "f.tmp-123"}
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if err := alive.Commit(); err != nil {
		t.Errorf("the one that lives: %v", err)
	}
}

// TestManyWriters: writers of one path at the same time do not sweep each other away.
func TestManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				if err := WriteBytes(path, 0o600, []byte("text")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if got := names(t, filepath.Dir(path)); !slices.Equal(got, []string{"f"}) {
		t.Errorf("%q", got)
	}
}
