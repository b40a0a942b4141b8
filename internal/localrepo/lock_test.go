package localrepo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/proc"
)

const sharedImages = 5

// fill opens or creates a repository and adds the same images as all others,
// under labels of its own.
func fill(t *testing.T, dir, worker string) {
	r, err := Open(t.Context(), dir, Options{Create: true, BusyTimeout: time.Minute})
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	for i := range sharedImages {
		content := fmt.Appendf(nil, "image %d", i)
		m := manifest(t, content)
		d := digest.FromBytes(m)
		err := store(t.Context(), r, d, content, Content{Manifest: m})
		if err == nil {
			err = r.Add(t.Context(), record(t, fmt.Sprintf("n%d/1:%s@s%%u", i, worker), d, len(content)))
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestManyAddToOneNewRepository has goroutines and processes create and fill one
// repository at once.
func TestManyAddToOneNewRepository(t *testing.T) {
	const goroutines, processes = 4, 4
	const variable = "UENV_CI_TEST_FILL"
	if dir, worker, ok := strings.Cut(os.Getenv(variable), ","); ok {
		fill(t, dir, worker)
		return
	}
	dir := filepath.Join(t.TempDir(), "repo")
	var wg sync.WaitGroup
	for w := range goroutines {
		wg.Go(func() { fill(t, dir, fmt.Sprint("g", w)) })
	}
	for w := range processes {
		wg.Go(func() {
			child := proc.Cmd{
				Path: os.Args[0], Args: []string{"-test.run=^" + t.Name() + "$"},
				Env: append(os.Environ(), fmt.Sprintf("%s=%s,p%d", variable, dir, w)),
			}
			if out, err := child.Output(t.Context()); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	r := open(t, dir)
	found, err := r.Find(t.Context(), label.Label{}, false)
	if err != nil || len(found) != (goroutines+processes)*sharedImages {
		t.Errorf("%d labels, %v", len(found), err)
	}
	findings, err := r.Verify(t.Context(), VerifyOptions{})
	if err != nil || len(findings) != sharedImages {
		t.Errorf("%d images, %v", len(findings), err)
	}
	for _, f := range findings {
		if f.Condition != Complete {
			t.Errorf("%+v", f)
		}
	}
	if gone, err := r.Prune(t.Context(), PruneOptions{Dry: true, All: true}); err != nil || len(gone) > 0 {
		t.Errorf("left behind: %v, %v", gone, err)
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
	second.events = func(e event.Event) {
		if e.Kind == event.Info {
			waiting <- struct{}{}
		}
	}
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

// Whoever may write to a shared repository could put a link in the place of a lock.
func TestLockIsNoLink(t *testing.T) {
	r, err := Open(t.Context(), t.TempDir(), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := digest.FromString("image")
	if err := os.Mkdir(filepath.Dir(r.Paths(d).Lock), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, r.Paths(d).Lock); err != nil {
		t.Fatal(err)
	}
	if l, err := r.Lock(t.Context(), d); err == nil {
		l.Unlock()
		t.Error("a link was taken for a lock")
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "precious" {
		t.Errorf("the link's target is %q, %v", data, err)
	}
}

// Reading who has a lock would wait for ever where that is a pipe.
func TestLockIsNoPipe(t *testing.T) {
	r := open(t, t.TempDir())
	d := pull(t, r, []byte("image"), "hello/1.0:v1@eiger%zen2")
	if err := os.Remove(r.Paths(d).Lock); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(r.Paths(d).Lock, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Lock(t.Context(), d); fault.KindOf(err) != fault.Refused {
		t.Errorf("got %v", err)
	}
	if r.held(d) {
		t.Error("somebody has it")
	}
}
