package squashfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// copyTree makes a copy of a tree with other times, made in the opposite order.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(tempDir(t), "copy")
	run(t, "cp", "-a", from, to)
	other := filepath.Join(tempDir(t), "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(to)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(entries) - 1; i >= 0; i-- {
		if err := os.Rename(filepath.Join(to, entries[i].Name()), filepath.Join(other, entries[i].Name())); err != nil {
			t.Fatal(err)
		}
	}
	filepath.Walk(other, func(name string, info os.FileInfo, err error) error {
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		if isRoot() && !strings.HasPrefix(info.Name(), "tool") { // chown drops setuid
			os.Lchown(name, 4711, 4712)
		}
		return os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0))
	})
	return other
}

func TestBytesDependOnContentOnly(t *testing.T) {
	g := mixedTree(t)
	for i := range 300 {
		g.file(fmt.Sprintf("many/%d/f%d", i%7, i), text(i*400, uint64(i/3)))
	}
	o := WriteOptions{Time: testTime, ForceOwner: &Owner{65534, 65534}, BlockSize: 16 << 10}
	_, want := packTree(t, g.root, o)
	for _, workers := range []int{1, 2, 5} {
		o.Workers = workers
		if _, got := packTree(t, g.root, o); got != want {
			t.Errorf("%d workers: %+v, want %+v", workers, got, want)
		}
	}
	if _, got := packTree(t, copyTree(t, g.root), o); got != want {
		t.Errorf("a copy: %+v, want %+v", got, want)
	}
}

func TestWriteEqualsPack(t *testing.T) {
	g := mixedTree(t)
	image, want := packTree(t, g.root, WriteOptions{})
	f, err := os.OpenFile(filepath.Join(tempDir(t), "old"), os.O_CREATE|os.O_RDWR, 0o600)
	g.must(err)
	defer f.Close()
	_, err = f.Write(noise(1<<20, 1))
	g.must(err)
	got, err := Write(t.Context(), g.root, f, WriteOptions{})
	want.Digest = "" // cmp tells
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	run(t, "cmp", image, f.Name())
}

func TestDuplicatesAreStoredOnce(t *testing.T) {
	size := func(grow func(grower)) int64 {
		g := newTree(t)
		grow(g)
		image, s := packTree(t, g.root, WriteOptions{BlockSize: 16 << 10})
		checkReader(t, image, g.root)
		return s.Size
	}
	once := size(func(g grower) {
		g.file("a", noise(1_000_000, 1))
		g.file("s", noise(9_000, 2))
	})
	often := size(func(g grower) {
		for i := range 5 {
			g.file(fmt.Sprintf("d%d/a", i), noise(1_000_000, 1))
			g.file(fmt.Sprintf("d%d/s", i), noise(9_000, 2))
		}
	})
	if often > once+imageAlign {
		t.Errorf("%d bytes, with duplicates %d", once, often)
	}
	alike := size(func(g grower) { // the same size and beginning
		for i := range 5 {
			data := noise(1_000_000, 1)
			data[999_999] = byte(i)
			g.file(fmt.Sprintf("a%d", i), data)
			g.file(fmt.Sprintf("b%d", i), data)
		}
	})
	if alike < 5_000_000 || alike > 5_100_000 {
		t.Errorf("%d bytes for five files of a million", alike)
	}
}

func TestExclude(t *testing.T) {
	g := newTree(t)
	for _, name := range []string{"keep/a.o", "keep/a.c", "keep/.git/config", ".git/head", "build/x", "keep/build/y", "keep/z.pyc"} {
		g.file(name, []byte(name))
	}
	image, _ := packTree(t, g.root, WriteOptions{Exclude: []string{".git", "/build", "*.pyc", "keep/*.o"}})
	l, err := describeImage(openImage(t, image))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "keep", "keep/a.c", "keep/build", "keep/build/y"} {
		if _, ok := l[name]; !ok {
			t.Errorf("%s is missing", name)
		}
		delete(l, name)
	}
	if len(l) > 0 {
		t.Errorf("not excluded: %v", l)
	}
}

func TestRefusals(t *testing.T) {
	g := newTree(t)
	g.file("f", []byte("x"))
	for name, c := range map[string]struct {
		root string
		out  string
		o    WriteOptions
		kind fault.Kind
		text string
	}{
		"no directory":  {root: g.path("f"), text: "not a directory", kind: fault.Usage},
		"nothing there": {root: g.path("none"), text: "no such file"},
		"block size":    {o: WriteOptions{BlockSize: 5000}, text: "block size 5000", kind: fault.Usage},
		"level":         {o: WriteOptions{Level: 40}, text: "zstd has no level 40", kind: fault.Usage},
		"codec":         {o: WriteOptions{Codec: Xz}, text: "xz can be read but not written", kind: fault.Usage},
		"time":          {o: WriteOptions{Time: time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)}, text: "2500-01-01", kind: fault.Usage},
		"pattern":       {o: WriteOptions{Exclude: []string{"[a"}}, text: "syntax error in pattern", kind: fault.Usage},
		"inside":        {out: g.path("image"), text: "image is inside the directory", kind: fault.Usage},
		"no such place": {out: g.path("none/image"), text: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root == "" {
				c.root = g.root
			}
			if c.out == "" {
				c.out = filepath.Join(tempDir(t), "image")
			}
			_, err := Pack(t.Context(), c.root, c.out, c.o)
			if err == nil || !strings.Contains(err.Error(), c.text) || fault.KindOf(err) != c.kind {
				t.Errorf("got %v of kind %d", err, fault.KindOf(err))
			}
			nothingLeft(t, filepath.Dir(c.out), "f")
		})
	}
}

func nothingLeft(t *testing.T, dir string, but ...string) {
	t.Helper()
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if len(but) == 0 || e.Name() != but[0] {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// TestFilesThatChange packs trees that were changed after they were scanned.
func TestFilesThatChange(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"shorter":  func(path string) error { return os.Truncate(path, 10) },
		"longer":   func(path string) error { return os.Truncate(path, 1<<20) },
		"removed":  os.Remove,
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
		"written": func(path string) error {
			time.Sleep(20 * time.Millisecond) // more than the clock of file times
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("!"), 5)
			return errors.Join(err, f.Close())
		},
	} {
		for _, size := range []int{100, 300_000} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				g := newTree(t)
				g.file("sub/file", text(size, 1))
				g.file("sub/other", text(size, 1))
				o := WriteOptions{}
				spec, err := o.complete()
				g.must(err)
				tree, err := scan(t.Context(), g.root, &o, stamp{})
				g.must(err)
				g.must(change(g.path("sub/file")))
				f, err := os.Create(filepath.Join(tempDir(t), "image"))
				g.must(err)
				defer f.Close()
				err = newPacker(tree, newOutput(f), spec, o, false).writeImage(t.Context())
				if err == nil || !strings.Contains(err.Error(), "sub/file changed while it was being packed") || fault.HintOf(err) == "" {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func TestCancel(t *testing.T) {
	g := newTree(t)
	for i := range 40 {
		g.file(fmt.Sprintf("big%d", i), noise(500_000, uint64(i)))
		g.file(fmt.Sprintf("small%d", i), noise(5_000, uint64(i)))
	}
	image := filepath.Join(tempDir(t), "image")
	before, files := runtime.NumGoroutine(), openFiles(t)
	ctx, cancel := context.WithCancel(t.Context())
	stop := event.Sink(func(e event.Event) {
		if e.Kind == event.Progress {
			cancel()
		}
	})
	_, err := Pack(ctx, g.root, image, WriteOptions{Events: stop})
	if !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Interrupted {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, filepath.Dir(image))
	for range 100 {
		if runtime.NumGoroutine() <= before {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if after, now := runtime.NumGoroutine(), openFiles(t); after > before || now > files {
		t.Errorf("goroutines: %d, then %d; files: %d, then %d", before, after, files, now)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(entries)
}

func TestEvents(t *testing.T) {
	g := mixedTree(t)
	var first, last event.Event
	count := 0
	sink := event.Sink(func(e event.Event) {
		if count == 0 {
			first = e
		}
		if e.Kind == event.Progress && e.Done > e.Total {
			t.Errorf("%d of %d", e.Done, e.Total)
		}
		count++
		last = e
	})
	packTree(t, g.root, WriteOptions{Events: sink, Workers: 1})
	if first.Kind != event.Started || last.Kind != event.Done || last.Stage != "pack" || count < 3 {
		t.Errorf("%d events from %+v to %+v", count, first, last)
	}
}

// TestFullDisk packs onto a file system of 1 MiB, in a private mount namespace.
func TestFullDisk(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root to mount a small tmpfs")
	}
	g := newTree(t)
	g.file("noise", noise(3<<20, 1))
	c := proc.Cmd{
		Path: "unshare", Args: []string{"--mount", "--propagation", "private", "sh", "-c",
			`mount -t tmpfs -o size=1m none "$1" && exec "$0" -test.run='^TestPackToFullDisk$' -test.v`, os.Args[0], tempDir(t)},
		Env: append(os.Environ(), "SQUASHFS_TEST_TREE="+g.root),
	}
	c.Env = append(c.Env, "SQUASHFS_TEST_OUT="+c.Args[len(c.Args)-1])
	out, err := c.Output(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%s", out)
	}
}

// TestPackToFullDisk is run by TestFullDisk.
func TestPackToFullDisk(t *testing.T) {
	root, out := os.Getenv("SQUASHFS_TEST_TREE"), os.Getenv("SQUASHFS_TEST_OUT")
	if root == "" {
		t.Skip("run by TestFullDisk")
	}
	_, err := Pack(t.Context(), root, filepath.Join(out, "image"), WriteOptions{})
	if err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(fault.HintOf(err), "full") {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
	nothingLeft(t, out)
}
