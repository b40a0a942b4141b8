package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
	. "uenv-ci.dev/internal/registrytest"
)

const mib = 1 << 20

// randomBlob returns n bytes that do not repeat, and their layer.
func randomBlob(n int) ([]byte, registry.Layer) {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	return data, registry.BytesLayer("store.squashfs", "", data)
}

// download fetches d to a new path and compares it.
func download(t *testing.T, p *registry.Repository, d ocispec.Descriptor, want []byte, o registry.DownloadOptions) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.squashfs")
	if err := p.Download(t.Context(), d, path, o); err != nil {
		t.Fatal(err)
	}
	checkDownload(t, path, want)
}

func checkDownload(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, %d wanted: %v", len(got), len(want), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the file: %v, %v", entries, err)
	}
}

func TestDownload(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, hello)
		for _, size := range []int{0, 1, mib - 1, mib, mib + 1, 9*mib + 5} {
			content, l := randomBlob(size)
			if size == 0 && b.noEmpty {
				continue
			}
			push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
			for _, connections := range []int{0, 1, 3, 100} {
				download(t, p, l.Descriptor, content, registry.DownloadOptions{Connections: connections})
			}
		}
		gone := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("gone"), Size: 4}
		path := filepath.Join(t.TempDir(), "gone")
		wantKind(t, p.Download(t.Context(), gone, path, registry.DownloadOptions{}), fault.NotFound)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file appeared: %v", err)
		}
	})
}

func TestDownloadOutlivesFaults(t *testing.T) {
	content, l := randomBlob(12*mib + 1)
	get := func(f Fault, times, skip int) Rule {
		return Rule{Method: "GET", Path: "blobs", Skip: skip, Times: times, Fault: f}
	}
	for name, rules := range map[string][]Rule{
		"resets":              {get(ResetAfter(mib+mib/2), 5, 0)},
		"resets at once":      {get(Reset, 3, 1)},
		"503":                 {get(Status(503), 3, 0)},
		"ranges ignored":      {get(IgnoreRange, 0, 0)},
		"ranges ignored late": {get(IgnoreRange, 0, 2)},
		"wrong ranges":        {get(WrongRange, 0, 0)},
		"gzip in between":     {get(gzipped, 2, 1)},
		"ignored and broken":  {get(IgnoreRange, 3, 0), get(ResetAfter(5*mib), 1, 0)},
	} {
		for _, connections := range []int{0, 1, 4} {
			t.Run(fmt.Sprint(name, " ", connections), func(t *testing.T) {
				p := at(t, Start(t, Referrers, Faults(rules...)))
				push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
				download(t, p, l.Descriptor, content, registry.DownloadOptions{Connections: connections})
			})
		}
	}
}

// gzipped plays a proxy that compresses.
func gzipped(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.Header.Get("Range") == "" {
		next.ServeHTTP(w, r)
		return
	}
	Header("Content-Encoding", "gzip")(w, r, next)
}

func TestDownloadThatFailsIsContinued(t *testing.T) {
	content, l := randomBlob(40 * mib)
	for _, connections := range []int{0, 1, 4} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			var seen Counter
			var cut cutter
			address := Start(t, Referrers, seen.Middleware(), cut.middleware)
			p := at(t, address)
			push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
			path := filepath.Join(t.TempDir(), "store.squashfs")
			cut.arm(30 * mib)
			wantKind(t, p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{Connections: connections}), fault.Network)
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file has its name before it is whole: %v", err)
			}
			cut.armed.Store(false)
			seen.Reset()
			if err := at(t, address).Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{Connections: connections}); err != nil {
				t.Fatal(err)
			}
			checkDownload(t, path, content)
			if seen.Bytes() > 15*mib {
				t.Errorf("%d bytes were sent again", seen.Bytes())
			}
		})
	}
}

// cutter breaks all downloads once the bytes it was armed with were sent.
type cutter struct {
	armed atomic.Bool
	left  atomic.Int64
}

func (c *cutter) arm(n int64) { c.left.Store(n); c.armed.Store(true) }

func (c *cutter) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && c.armed.Load() {
			w = &cutting{w, c}
		}
		next.ServeHTTP(w, r)
	})
}

type cutting struct {
	http.ResponseWriter
	c *cutter
}

func (w *cutting) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *cutting) Write(b []byte) (int, error) {
	if left := w.c.left.Add(-int64(len(b))); left < 0 {
		_, _ = w.ResponseWriter.Write(b[:max(0, int64(len(b))+left)])
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(b)
}

// What the journal claims and the disk lost, as after a crash, is fetched again.
func TestDamagedPartialFile(t *testing.T) {
	content, l := randomBlob(20 * mib)
	var cut cutter
	address := Start(t, Referrers, cut.middleware)
	p := at(t, address)
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	for name, damage := range map[string]func(t *testing.T, path string){
		"a chunk lost":      func(t *testing.T, path string) { damageAt(t, path+registry.PartialSuffix, 3*mib+7) },
		"many chunks lost":  func(t *testing.T, path string) { truncate(t, path+registry.PartialSuffix, 2*mib) },
		"the file gone":     func(t *testing.T, path string) { _ = os.Remove(path + registry.PartialSuffix) },
		"a torn record":     func(t *testing.T, path string) { truncate(t, path+registry.JournalSuffix, 150) },
		"a wrong record":    func(t *testing.T, path string) { damageAt(t, path+registry.JournalSuffix, 140) },
		"a foreign journal": func(t *testing.T, path string) { damageAt(t, path+registry.JournalSuffix, 30) },
		"an empty journal":  func(t *testing.T, path string) { truncate(t, path+registry.JournalSuffix, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.squashfs")
			cut.arm(15 * mib)
			if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err == nil {
				t.Fatal("it was not interrupted")
			}
			cut.armed.Store(false)
			damage(t, path)
			if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err != nil {
				t.Fatal(err)
			}
			checkDownload(t, path, content)
		})
	}
}

func damageAt(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func TestDownloadOfWrongBytes(t *testing.T) {
	content, l := randomBlob(6 * mib)
	p := at(t, Start(t, Referrers, Faults(Rule{Method: "GET", Path: "blobs", Times: 1, Fault: FlipBit(2 * mib)})))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	path := filepath.Join(t.TempDir(), "store.squashfs")
	wantKind(t, p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}), fault.Network)
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("something stays that is wrong: %v, %v", entries, err)
	}
	if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	checkDownload(t, path, content)
}

func TestDownloadLeavesWhatIsThere(t *testing.T) {
	content, l := randomBlob(mib)
	var seen Counter
	p := at(t, Start(t, Referrers, seen.Middleware()))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	path := filepath.Join(t.TempDir(), "store.squashfs")
	for range 2 {
		if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	checkDownload(t, path, content)
	if seen.Bytes() > mib+1000 {
		t.Errorf("%d bytes were sent for what is there", seen.Bytes())
	}
	truncate(t, path, 10)
	if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file of another size: %v", err)
	}
}

func TestDownloadOptions(t *testing.T) {
	content, l := randomBlob(3 * mib)
	address := Start(t, Referrers)
	push(t, at(t, address), registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	var mu sync.Mutex
	var last event.Event
	r, err := registry.Open(address, registry.Options{Events: func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		last = e
	}})
	if err != nil {
		t.Fatal(err)
	}
	var created string
	path := filepath.Join(t.TempDir(), "x")
	err = repository(t, r, "hello/1.0").Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{
		Stage: "pull", Limit: 1 << 40,
		Create: func(path string) (*os.File, error) {
			created = path
			return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	checkDownload(t, path, content)
	if created != path+registry.PartialSuffix {
		t.Errorf("created %q", created)
	}
	if last.Stage != "pull" || last.Done != 3*mib || last.Total != 3*mib || last.Unit != "B" {
		t.Errorf("last event %+v", last)
	}
}

func TestConcurrentDownloadsFetchOnce(t *testing.T) {
	content, l := randomBlob(20 * mib)
	for _, n := range []int{2, 8, 32} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var seen Counter
			address := Start(t, Referrers, seen.Middleware())
			push(t, at(t, address), registry.Artifact{Type: image, Layers: []registry.Layer{l}})
			path := filepath.Join(t.TempDir(), "store.squashfs")
			errs := make([]error, n)
			var wg sync.WaitGroup
			for i := range n {
				p := at(t, address)
				wg.Go(func() { errs[i] = p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}) })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			checkDownload(t, path, content)
			if seen.Bytes() > 21*mib {
				t.Errorf("%d bytes were sent for %d", seen.Bytes(), len(content))
			}
		})
	}
}

func TestWaitersShowTheProgressAndCanBeInterrupted(t *testing.T) {
	_, l := randomBlob(8 * mib)
	hold := make(chan struct{})
	var pieces atomic.Int32
	address := Start(t, Referrers, Faults(Rule{Method: "GET", Path: "blobs", Fault: Slow(16<<10, func() {
		if pieces.Add(1) > 100 {
			<-hold
		}
	})}))
	push(t, at(t, address), registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	path := filepath.Join(t.TempDir(), "store.squashfs")
	owner, waiter := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- at(t, address).Download(owner, l.Descriptor, path, registry.DownloadOptions{}) }()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, err := registry.Open(address, registry.Options{Events: func(e event.Event) {
		if e.Kind == event.Progress && e.Done >= mib && e.Total == 8*mib {
			stop()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := os.Stat(path + registry.JournalSuffix); err != nil; {
		_, err = os.Stat(path + registry.JournalSuffix)
	}
	wantKind(t, repository(t, r, "hello/1.0").Download(ctx, l.Descriptor, path, registry.DownloadOptions{}), fault.Interrupted)
	waiter()
	close(hold)
	wantKind(t, <-ended, fault.Interrupted)
}

func TestDownloadRefusesLinksAndGiants(t *testing.T) {
	_, l := randomBlob(mib)
	p := at(t, Start(t, Referrers))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	for _, suffix := range []string{registry.PartialSuffix, registry.JournalSuffix} {
		path, victim := filepath.Join(t.TempDir(), "x"), writeFile(t, 0o600, "precious", "victim")
		if err := os.Symlink(victim, path+suffix); err != nil {
			t.Fatal(err)
		}
		if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err == nil {
			t.Errorf("%s: written through a link", suffix)
		}
		if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
			t.Errorf("%s: the file is %q now, %v", suffix, got, err)
		}
	}
	giant := ocispec.Descriptor{MediaType: "text/plain", Digest: l.Descriptor.Digest, Size: 1 << 62}
	wantKind(t, p.Download(t.Context(), giant, filepath.Join(t.TempDir(), "x"), registry.DownloadOptions{}), fault.Invalid)
}

func TestDownloadToAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	_, l := randomBlob(2 * mib)
	var seen Counter
	p := at(t, Start(t, Referrers, seen.Middleware()))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	seen.Reset()
	err := p.Download(t.Context(), l.Descriptor, filepath.Join(small, "x"), registry.DownloadOptions{})
	if !errors.Is(err, syscall.ENOSPC) || fault.HintOf(err) == "" || seen.Bytes() > 0 {
		t.Errorf("error %v, hint %q, %d bytes fetched", err, fault.HintOf(err), seen.Bytes())
	}
}

// A process that is killed at any point leaves what the next one goes on with.
func TestKilledDownloadsAreContinued(t *testing.T) {
	content, l := randomBlob(30 * mib)
	var seen Counter
	var pieces atomic.Int64 // of 16 KiB, sent so far
	address := Start(t, Referrers, seen.Middleware(), Faults(Rule{Method: "GET", Path: "blobs", Fault: Slow(16<<10, func() { pieces.Add(1) })}))
	push(t, at(t, address), registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	seen.Reset()
	path := filepath.Join(t.TempDir(), "store.squashfs")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	kills := 0
	for {
		p, err := proc.Cmd{
			Path: self, Args: []string{"-test.run=^TestDownloadInAProcess$"}, Stderr: os.Stderr,
			Env: append(os.Environ(), "REGISTRY_TEST_ADDRESS="+address, "REGISTRY_TEST_DIGEST="+l.Descriptor.Digest.String(), "REGISTRY_TEST_PATH="+path),
		}.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at := pieces.Load() + 300 + random.Int64N(600)
		ended := make(chan error, 1)
		go func() { ended <- p.Wait() }()
		killed := killAt(p, func() bool { return pieces.Load() >= at }, ended)
		if _, err := os.Stat(path); err == nil {
			break
		}
		if kills++; !killed {
			t.Fatal("the process failed by itself")
		}
	}
	checkDownload(t, path, content)
	// What is on its way when a process dies, in the buffers of sockets, is lost.
	if most := int64(len(content)) + int64(kills)*10*mib; kills < 2 || seen.Bytes() > most {
		t.Errorf("%d bytes were sent for %d with %d kills", seen.Bytes(), len(content), kills)
	}
}

// killAt kills p when it is time, and tells whether it was still running then.
func killAt(p *proc.Process, due func() bool, ended <-chan error) bool {
	for !due() {
		select {
		case <-ended:
			return false
		case <-time.After(time.Millisecond):
		}
	}
	_ = p.Signal(syscall.SIGKILL)
	<-ended
	return true
}

// TestDownloadInAProcess is a process of TestKilledDownloadsAreContinued.
func TestDownloadInAProcess(t *testing.T) {
	address := os.Getenv("REGISTRY_TEST_ADDRESS")
	if address == "" {
		t.Skip("only started by TestKilledDownloadsAreContinued")
	}
	d := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.Digest(os.Getenv("REGISTRY_TEST_DIGEST")), Size: 30 * mib}
	if err := at(t, address).Download(t.Context(), d, os.Getenv("REGISTRY_TEST_PATH"), registry.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
}
