package squashfs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// golden are the digests of one tree, by the library that compressed it. If one
// changes without its key, images are no longer what the same version made of
// the same tree before: the key must change too, and so the content keys of all
// images built with it.
var golden = map[string]digest.Digest{
	"zstd klauspost-v1.20.2+parts32+tables5": "sha256:00f8c61ae67a1313941d489d0a8495699dfbb4796142153baefa798c301496cb",
	"gzip klauspost-v1.20.2":                 "sha256:3c15594108a63ab88edd1899a54303acb3f0cb15c2fbf1c2ef8cefa2d57ab483",
	"zstd libzstd-v1.5.7+tables5":            "sha256:29837128acf51e09deb9ff62e90c3bcc35fb220213acf75bf5646d036f2878c9",
	"none ":                                  "sha256:753a8d731a1cdd41b36dde064b3a8d04a0acd6c0f1dfebe01502d1aef00ef4e6",
}

func goldenTree(t *testing.T) grower {
	t.Helper()
	g := newTree(t)
	for i := range 50 {
		g.file(fmt.Sprintf("include/h%02d.h", i), text(i*i*11, uint64(i)))
	}
	for i := range 40 { // small directories, and such as fill blocks of their own
		for k := range 1 + i%5 {
			g.file(fmt.Sprintf("share/p%d/d%02d/f%d%s", i%3, i, k, []string{".py", ".h", ""}[k%3]), text(1+i*i*k*13, uint64(100+10*i+k)))
		}
	}
	g.file("lib/liba.so", text(500_000, 77))
	g.file("lib/libb.so", noise(200_000, 78))
	g.file("lib/libc.so", text(500_000, 77))
	g.link("liba.so", "lib/link.so")
	g.hardLink("lib/libb.so", "lib/hard.so")
	g.file("zeros", make([]byte, 300_000))
	g.must(filepath.WalkDir(g.root, func(name string, d fs.DirEntry, err error) error { // whatever the umask
		switch {
		case err != nil || d.Type()&fs.ModeSymlink != 0:
			return err
		case d.IsDir():
			return os.Chmod(name, 0o755)
		}
		return os.Chmod(name, 0o644)
	}))
	return g
}

func TestGoldenDigests(t *testing.T) {
	g := goldenTree(t)
	for _, codec := range []Codec{Zstd, Gzip, None} {
		_, s := packTree(t, g.root, WriteOptions{Codec: codec, Time: testTime, ForceOwner: &Owner{65534, 65534}})
		key := s.Codec + " " + s.CodecVersion
		if want, known := golden[key]; !known || s.Digest != want {
			t.Errorf("%s: got %s, want %s", key, s.Digest, want)
		}
	}
}

// TestCodecVersions keeps the recorded versions those of go.mod.
func TestCodecVersions(t *testing.T) {
	data, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for module, version := range map[string]string{
		"github.com/klauspost/compress": klauspostVersion,
		"github.com/DataDog/zstd":       libzstdVersion,
	} {
		if !bytes.Contains(data, []byte(module+" "+version+"\n")) && !bytes.Contains(data, []byte(module+" "+version+" //")) {
			t.Errorf("go.mod has another version of %s than %s", module, version)
		}
	}
}

// TestFrames checks what a kernel's decoder needs of each zstd frame.
func TestFrames(t *testing.T) {
	g := goldenTree(t)
	for _, level := range []int{1, 3, 9, 19} {
		for _, blockSize := range []int{4096, 128 << 10, 1 << 20} {
			image, _ := packTree(t, g.root, WriteOptions{Level: level, BlockSize: blockSize})
			checkFrames(t, openImage(t, image))
		}
	}
}

func checkFrames(t *testing.T, m *Image) {
	t.Helper()
	frames := 0
	check := func(at uint64, word uint32) {
		if word&dataRaw != 0 {
			return
		}
		raw := make([]byte, word)
		if err := m.readAt(raw, int64(at)); err != nil {
			t.Fatal(err)
		}
		var h zstd.Header
		if err := h.Decode(raw); err != nil {
			t.Fatal(err)
		}
		if window := h.WindowSize; h.HasCheckSum || !h.HasFCS || h.FrameContentSize > uint64(m.sb.BlockSize) || window > uint64(m.sb.BlockSize) {
			t.Errorf("block size %d: %+v", m.sb.BlockSize, h)
		}
		frames++
	}
	for i := range m.sb.Fragments {
		at, word, err := m.fragmentEntry(i)
		if err != nil {
			t.Fatal(err)
		}
		check(at, word)
	}
	w := walker{m: m, directory: func(string, *inode) error { return nil }}
	w.entry = func(_ string, _ *inode, _ dirent, i *inode) error {
		if i.kind != typeFile {
			return nil
		}
		c, err := m.content(i)
		for k, word := range c.words {
			if !c.hole(k) {
				check(c.at[k], word)
			}
		}
		return err
	}
	if err := w.walk(t.Context()); err != nil || frames == 0 {
		t.Errorf("%d frames, %v", frames, err)
	}
}
