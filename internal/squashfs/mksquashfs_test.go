package squashfs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

func TestPackByMksquashfs(t *testing.T) {
	if !has(t, "mksquashfs", "squashfs-tools") {
		t.Skip("mksquashfs not installed: apt-get install squashfs-tools")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1")
	g := newTree(t)
	g.file("d/file", text(100_000, 1))
	g.file("small", text(10, 2))
	g.must(os.Link(g.root+"/small", g.root+"/d/hard"))
	when := time.Unix(1_700_000_000, 0).UTC()
	before := when.Add(-time.Hour)
	for _, o := range []WriteOptions{{}, {Level: 7, BlockSize: 4096}, {Codec: Gzip}, {Codec: None}} {
		o.Time, o.ModTime, o.ForceOwner = when, before, &Owner{65534, 65534}
		dir := tempDir(t)
		s, err := PackByMksquashfs(t.Context(), g.root, filepath.Join(dir, "image"), o)
		g.must(err)
		again, err := PackByMksquashfs(t.Context(), g.root, filepath.Join(tempDir(t), "other"), o)
		g.must(err)
		if s.Digest != again.Digest {
			t.Errorf("%v: two images differ", o.Codec)
		}
		if s.Files != 3 || s.Directories != 2 || s.Links != 1 || s.InputBytes != 100_010 {
			t.Errorf("counted %+v", s)
		}
		m, err := Open(filepath.Join(dir, "image"))
		g.must(err)
		defer m.Close()
		told, err := m.Compressor()
		if err != nil || told != s.Compressor() || !strings.HasPrefix(told, o.Codec.String()+"@mksquashfs-") {
			t.Errorf("the image says %q, %v", told, err)
		}
		info := m.Info()
		if info.BlockSize != s.BlockSize || !info.Time.Equal(when) || info.Codec != o.Codec || o.Codec != None && info.Level != s.Level {
			t.Errorf("%+v in place of %+v", info, s)
		}
		file, err := m.Stat("d/file")
		g.must(err)
		if st := file.Sys().(*Stat); st.Owner != *o.ForceOwner || !file.ModTime().Equal(before) {
			t.Errorf("file: %+v, %v", st, file.ModTime())
		}
		if size := s.Size; size%imageAlign != 0 {
			t.Errorf("size %d", size)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
	}
	dir := tempDir(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		root string
		o    WriteOptions
		kind fault.Kind
	}{
		"base":      {t.Context(), g.root, WriteOptions{Base: "x"}, fault.Usage},
		"exclude":   {t.Context(), g.root, WriteOptions{Exclude: []string{"x"}}, fault.Usage},
		"codec":     {t.Context(), g.root, WriteOptions{Codec: Xz}, fault.Usage},
		"no tree":   {t.Context(), g.root + "/none", WriteOptions{}, fault.Failure},
		"cancelled": {cancelled, g.root, WriteOptions{}, fault.Interrupted},
	} {
		if _, err := PackByMksquashfs(c.ctx, c.root, filepath.Join(dir, "image"), c.o); fault.KindOf(err) != c.kind {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
