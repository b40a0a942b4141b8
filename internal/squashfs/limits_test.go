package squashfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

func TestLimits(t *testing.T) {
	g := newTree(t)
	for i := range 20 {
		g.file(fmt.Sprintf("d/%d", i), nil)
	}
	g.file("file", text(100_000, 1))
	image, _ := packTree(t, g.root, WriteOptions{BlockSize: 4096})
	data, err := os.ReadFile(image)
	g.must(err)
	for name, c := range map[string]struct {
		l    Limits
		do   func(m *Image) error
		text string
	}{
		"entries of a directory": {Limits{DirEntries: 19}, func(m *Image) error { _, err := m.ReadDir("d"); return err }, "limit of 19"},
		"entries":                {Limits{Entries: 21}, func(m *Image) error { return Verify(t.Context(), m, nil) }, "more entries"},
		"entries, unpacking":     {Limits{Entries: 21}, func(m *Image) error { return Unpack(t.Context(), m, filepath.Join(tempDir(t), "d"), UnpackOptions{}) }, "more entries"},
		"blocks of a file":       {Limits{FileBlocks: 24}, func(m *Image) error { _, err := m.Open("file"); return err }, "limit of 24"},
	} {
		m, err := NewReader(bytes.NewReader(data), int64(len(data)), c.l)
		g.must(err)
		if err := c.do(m); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v", name, err)
		}
		m, err = NewReader(bytes.NewReader(data), int64(len(data)), Limits{DirEntries: 20, Entries: 22, FileBlocks: 25})
		g.must(err)
		if err := c.do(m); err != nil {
			t.Errorf("%s: at the limit: %v", name, err)
		}
	}
}

// TestOpenByParts is the way where the kernel has no openat2.
func TestOpenByParts(t *testing.T) {
	root := tempDir(t)
	if err := os.MkdirAll(root+"/a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", root+"/a/out"); err != nil {
		t.Fatal(err)
	}
	top, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	dir, err := top.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	u := &unpacker{top: top, topFD: int(dir.Fd())}
	for path, ok := range map[string]bool{".": true, "a/b": true, "a/out": false, "a/out/etc": false, "../x": false, "a/none": false} {
		for name, open := range map[string]func(string) error{
			"openat2": func(path string) error { p, err := u.open(path); p.release(); return err },
			"parts": func(path string) error {
				fd, err := u.openByParts(path)
				unix.Close(fd)
				return err
			},
		} {
			if err := open(path); (err == nil) != ok {
				t.Errorf("%s %q: %v", name, path, err)
			}
		}
	}
}
