package mount

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// TestVerifyOnce counts how often a file is read, and changes it in ways that its
// size and time do not show.
func TestVerifyOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path := filepath.Join(t.TempDir(), "image")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("good")
	reads := 0
	events := event.Sink(func(e event.Event) {
		if e.Kind == event.Progress {
			reads++
		}
	})
	verify := func() error { return Verify(t.Context(), path, digest.FromString("good"), events) }
	if err := verify(); err != nil || reads == 0 {
		t.Fatalf("%v after %d reads", err, reads)
	}
	reads = 0
	if err := verify(); err != nil || reads != 0 {
		t.Errorf("the second time: %v after %d reads", err, reads)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := info.Sys().(*syscall.Stat_t).Ctim
	for now := changed; now == changed; time.Sleep(time.Millisecond) { // till the file system's clock ticks
		write("evil")
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err == nil {
			now = info.Sys().(*syscall.Stat_t).Ctim
		}
	}
	for range 2 {
		if err := verify(); fault.KindOf(err) != fault.Invalid {
			t.Errorf("a changed file: %v", err)
		}
	}
}

// TestVerifyWithoutACache reads the file each time.
func TestVerifyWithoutACache(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte("good"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), path, digest.FromString("good"), nil); err != nil {
		t.Error(err)
	}
	if err := Verify(t.Context(), path, digest.FromString("evil"), nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}
