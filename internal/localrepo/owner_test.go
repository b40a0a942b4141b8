package localrepo

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
)

// TestWaitersSeeTheOwnersProgress has one process hold a lock and report, and
// another wait for it.
func TestWaitersSeeTheOwnersProgress(t *testing.T) {
	dir := t.TempDir()
	r, d := open(t, dir), digest.FromString("x")
	lock, err := r.Lock(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	lock.Report("pull", 30, 100)
	lock.Report("pull", 31, 100) // too soon to be told
	var mu sync.Mutex
	var told string
	seen := make(chan event.Event)
	waiter := open(t, dir)
	waiter.events = func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == event.Progress {
			seen <- e
		} else {
			told += e.Message
		}
	}
	result := make(chan error)
	go func() {
		l, err := waiter.Lock(t.Context(), d)
		if l != nil {
			l.Unlock()
		}
		result <- err
	}()
	if e := <-seen; e.Stage != "pull" || e.Done != 30 || e.Total != 100 || e.Unit != "B" {
		t.Errorf("got %+v", e)
	}
	lock.Report("pull", 100, 100)
	for e := range seen {
		if e.Done == 100 {
			break
		}
	}
	lock.Unlock()
	for done := false; !done; {
		select {
		case <-seen:
		case err := <-result:
			if done = true; err != nil {
				t.Error(err)
			}
		}
	}
	if want := fmt.Sprintf("process %d on ", os.Getpid()); !strings.Contains(told, want) {
		t.Errorf("told %q, not %q", told, want)
	}
}

func TestOwnerOf(t *testing.T) {
	for text, want := range map[string]owner{
		"":                          {},
		"garbage":                   {},
		"12 nid001":                 {pid: 12, host: "nid001"},
		"12 nid001 pull 3 4\n":      {12, "nid001", "pull", 3, 4},
		"12 nid001 pull -3 4":       {pid: 12, host: "nid001"},
		"-1 nid001":                 {},
		strings.Repeat("x", 10_000): {},
		string((owner{7, "host", "pull", 1, 2}).encode()): {7, "host", "pull", 1, 2},
		string((owner{pid: 7, host: "host"}).encode()):    {pid: 7, host: "host"},
	} {
		path := t.TempDir() + "/lock"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := ownerOf(f); got != want {
			t.Errorf("%.40q: got %+v, want %+v", text, got, want)
		}
		f.Close()
	}
	if data := (owner{pid: 1, host: strings.Repeat("h", 300)}).encode(); data != nil {
		t.Errorf("an endless host name: %d bytes", len(data))
	}
}
