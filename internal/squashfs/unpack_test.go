package squashfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

func TestUnpackAll(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root to restore owners and device nodes")
	}
	g := mixedTree(t)
	want, err := describeDir(g.root)
	g.must(err)
	image, _ := packTree(t, g.root, WriteOptions{Time: testTime})
	for _, workers := range []int{1, 4} {
		dst := filepath.Join(tempDir(t), "dst")
		if err := Unpack(t.Context(), openImage(t, image), dst, UnpackOptions{Preserve: true, Workers: workers}); err != nil {
			t.Fatal(err)
		}
		got, err := describeDir(dst)
		g.must(err)
		same(t, "unpacked", got, want)
		checkTimesAndHoles(t, dst)
	}
}

func checkTimesAndHoles(t *testing.T, dst string) {
	t.Helper()
	for _, name := range []string{".", "lib", "lib/dangling", "bin/tool", "fifo", "sparse"} {
		info, err := os.Lstat(filepath.Join(dst, name))
		if err != nil || !info.ModTime().Equal(testTime) {
			t.Errorf("%s: %v, %v", name, info.ModTime(), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dst, "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the holes were filled: %d blocks, %v", st.Blocks, err)
	}
}

func TestUnpackCarefully(t *testing.T) {
	g := mixedTree(t)
	if isRoot() {
		g.xattr("bin/tool", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		g.xattr("bin/tool", "trusted.secret", "x")
	}
	image, _ := packTree(t, g.root, WriteOptions{Time: testTime})
	dst := filepath.Join(tempDir(t), "dst")
	warned := false
	sink := event.Sink(func(e event.Event) {
		warned = warned || e.Kind == event.Warning && strings.Contains(e.Message, "2 device nodes")
	})
	if err := Unpack(t.Context(), openImage(t, image), dst, UnpackOptions{Events: sink}); err != nil {
		t.Fatal(err)
	}
	want, err := describeImage(openImage(t, image))
	g.must(err)
	for name, text := range want { // what a careful unpacking makes of it
		fields := strings.SplitN(text, " ", 3)
		mode := strings.Replace(fields[0], "104755", "100755", 1)
		want[name] = fmt.Sprintf("%s %d:%d %s", mode, os.Geteuid(), os.Getegid(), fields[2])
		if i := strings.Index(want[name], ` security.capability=`); i >= 0 {
			end := strings.Index(want[name][i+1:], " ")
			want[name] = want[name][:i] + want[name][i+1+end:]
		}
		if strings.Contains(text, "dev=") {
			delete(want, name)
		}
	}
	got, err := describeDir(dst)
	g.must(err)
	same(t, "unpacked", got, want)
	checkTimesAndHoles(t, dst)
	if isRoot() && !warned {
		t.Error("no warning of the device nodes")
	}
}

func TestUnpackOnlyIntoAnEmptyDirectory(t *testing.T) {
	g := newTree(t)
	g.file("f", text(300_000, 1))
	image, _ := packTree(t, g.root, WriteOptions{})
	dst := tempDir(t)
	g.must(os.WriteFile(filepath.Join(dst, "mine"), []byte("x"), 0o644))
	err := Unpack(t.Context(), openImage(t, image), dst, UnpackOptions{})
	if fault.KindOf(err) != fault.Usage || !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, dst, "mine")
	g.must(os.Remove(filepath.Join(dst, "mine")))
	g.must(Unpack(t.Context(), openImage(t, image), dst, UnpackOptions{}))
	if _, err := os.Stat(filepath.Join(dst, "f")); err != nil {
		t.Error(err)
	}
}

func TestUnpackLeavesNothingAfterAnError(t *testing.T) {
	g := newTree(t)
	for i := range 30 {
		g.file(fmt.Sprintf("d%d/f", i), noise(100_000, uint64(i)))
	}
	image, _ := packTree(t, g.root, WriteOptions{})
	existing := tempDir(t)
	for name, c := range map[string]struct {
		dst  string
		o    UnpackOptions
		kind fault.Kind
	}{
		"limit":    {dst: filepath.Join(tempDir(t), "new"), o: UnpackOptions{MaxBytes: 1_000_000}, kind: fault.Refused},
		"existing": {dst: existing, o: UnpackOptions{MaxBytes: 1_000_000}, kind: fault.Refused},
		"cancel":   {dst: filepath.Join(tempDir(t), "new"), kind: fault.Interrupted},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if name == "cancel" {
			c.o.Events = func(e event.Event) {
				if e.Kind == event.Progress {
					cancel()
				}
			}
		}
		err := Unpack(ctx, openImage(t, image), c.dst, c.o)
		cancel()
		if fault.KindOf(err) != c.kind {
			t.Errorf("%s: got %v", name, err)
		}
		if c.dst == existing {
			nothingLeft(t, existing)
		} else {
			nothingLeft(t, filepath.Dir(c.dst))
		}
	}
}

func TestUnpackOneDirectory(t *testing.T) {
	g := mixedTree(t)
	image, _ := packTree(t, g.root, WriteOptions{Time: testTime})
	dst := filepath.Join(tempDir(t), "dst")
	if err := Unpack(t.Context(), openImage(t, image), dst, UnpackOptions{From: "lib"}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadDir(filepath.Join(g.root, "lib"))
	g.must(err)
	got, err := os.ReadDir(dst)
	g.must(err)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, name := range []string{"none", "bin/tool", "lib/dangling"} {
		err := Unpack(t.Context(), openImage(t, image), filepath.Join(tempDir(t), "dst"), UnpackOptions{From: name})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
