package squashfs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

func TestSizesAroundTheBlock(t *testing.T) {
	for _, blockSize := range []int{4096, 128 << 10} {
		g := newTree(t)
		for _, size := range []int{0, 1, 2, 4095, blockSize - 1, blockSize, blockSize + 1, 2*blockSize - 1, 2 * blockSize, 3*blockSize + 17} {
			g.file(fmt.Sprintf("text-%d", size), text(size, uint64(size)))
			g.file(fmt.Sprintf("again/text-%d", size), text(size, uint64(size)))
			g.file(fmt.Sprintf("noise-%d", size), noise(size, uint64(size)))
			g.file(fmt.Sprintf("zeros-%d", size), make([]byte, size))
			half := text(size, uint64(size)+7)
			clear(half[min(size, blockSize):min(size, 2*blockSize)])
			g.file(fmt.Sprintf("holed-%d", size), half)
		}
		image, _ := packTree(t, g.root, WriteOptions{BlockSize: blockSize})
		checkAll(t, image, g.root)
	}
}

func TestDirectorySizes(t *testing.T) {
	g := newTree(t)
	for _, count := range []int{1, 255, 256, 257, 512, 513} {
		for i := range count {
			g.file(fmt.Sprintf("d%d/%d", count, i), nil)
		}
	}
	// Listings of about 8 KiB and 64 KiB: long names keep the number of files small.
	long := strings.Repeat("n", 200)
	for _, count := range []int{37, 38, 39, 40, 312, 313, 314, 315, 316} {
		for i := range count {
			g.file(fmt.Sprintf("l%d/%s%04d", count, long, i), nil)
		}
	}
	image, _ := packTree(t, g.root, WriteOptions{})
	checkAll(t, image, g.root)
	m := openImage(t, image)
	for _, name := range []string{long + "0000", long + "0157", long + "0314"} {
		if _, err := m.Stat("l315/" + name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"a", long, long + "0157x", "z"} {
		if _, err := m.Stat("l315/" + name); !os.IsNotExist(err) {
			t.Errorf("%.10s…: %v", name, err)
		}
	}
}

func TestManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 70,000 files")
	}
	g := newTree(t)
	g.dir("d")
	const count = 70_000
	for i := range count {
		f, err := os.Create(filepath.Join(g.root, "d", fmt.Sprintf("%05d", i)))
		g.must(err)
		f.Close()
	}
	g.dir("z")
	g.hardLink("d/00000", "z/first") // inode numbers far from each other below one header
	g.hardLink("d/69999", "z/last")
	image, summary := packTree(t, g.root, WriteOptions{})
	if summary.Files != count+2 || summary.Links != 2 {
		t.Errorf("%+v", summary)
	}
	m := openImage(t, image)
	entries, err := m.ReadDir("d")
	if err != nil || len(entries) != count || entries[count-1].Name() != "69999" {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, name := range []string{"d/00000", "d/34567", "d/69999", "z/first", "z/last"} {
		if _, err := m.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if has(t, "unsquashfs", "squashfs-tools") {
		if lines := strings.Count(run(t, "unsquashfs", "-l", image), "\n"); lines != count+5 {
			t.Errorf("unsquashfs lists %d lines", lines)
		}
	}
}

func TestNames(t *testing.T) {
	g := newTree(t)
	for i, name := range []string{
		strings.Repeat("x", 255), strings.Repeat("é", 127), "\xff\xfe not UTF-8 \x80", "new\nline", " ", "-", "~", "a\\b", "\x01",
		"A", "a", "a.b", "a b", "aa", "ä",
	} {
		g.file(name, []byte{byte(i)})
		g.file("sub/"+name+"/"+name, []byte{byte(i)})
	}
	deep := strings.Repeat("deep/", 300)
	g.file(deep+"file", []byte("down here"))
	g.link(strings.Repeat("t", 4095), "longest")
	image, _ := packTree(t, g.root, WriteOptions{})
	checkAll(t, image, g.root)
	data, err := openImage(t, image).ReadFile(deep + "file")
	if err != nil || string(data) != "down here" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestManyFragmentsAndXattrs(t *testing.T) {
	g := newTree(t)
	for i := range 700 { // more than 512 fragments, which one block of their table holds
		g.file(fmt.Sprintf("f%03d", i), noise(2500, uint64(i)))
	}
	xattrs := true
	for i := 0; i < 600 && xattrs; i++ { // likewise sets of attributes
		name := fmt.Sprintf("f%03d", i)
		// No empty values: squashfuse does not find them, in images of mksquashfs either.
		xattrs = g.xattr(name, "user.number", fmt.Sprint(i)) && g.xattr(name, "user.x", strings.Repeat("y", i+1))
	}
	image, _ := packTree(t, g.root, WriteOptions{BlockSize: 4096})
	if n := openImage(t, image).Info().Fragments; n <= 512 {
		t.Errorf("only %d fragments", n)
	}
	checkAll(t, image, g.root)
}

// TestFileBeyond4GiB packs a file whose size and holes do not fit 32 bits.
func TestFileBeyond4GiB(t *testing.T) {
	g := newTree(t)
	f, err := os.Create(g.path("big"))
	g.must(err)
	const size = 5<<30 + 12345
	g.must(f.Truncate(size))
	_, err = f.WriteAt([]byte("near the end"), size-20)
	g.must(err)
	_, err = f.WriteAt([]byte("in the middle"), 2<<30)
	g.must(err)
	g.must(f.Close())
	image, summary := packTree(t, g.root, WriteOptions{BlockSize: 1 << 20})
	if summary.Size > 1<<20 {
		t.Errorf("the holes were stored: %d bytes", summary.Size)
	}
	checkBig := func(what string, r io.ReaderAt, got int64) {
		buf := make([]byte, 20)
		if _, err := r.ReadAt(buf, size-20); err != nil || !bytes.HasPrefix(buf, []byte("near the end")) || got != size {
			t.Errorf("%s: %q, %v, %d bytes", what, buf, err, got)
		}
		if _, err := r.ReadAt(buf, 2<<30); err != nil || !bytes.HasPrefix(buf, []byte("in the middle")) {
			t.Errorf("%s: %q, %v", what, buf, err)
		}
	}
	opened, err := openImage(t, image).Open("big")
	g.must(err)
	info, _ := opened.Stat()
	checkBig("own reader", opened.(*File), info.Size())
	if stored := info.Sys().(*Stat).Stored; stored > 2<<20 {
		t.Errorf("%d bytes stored", stored)
	}
	unpackers := map[string]func(string){"own": func(dst string) {
		g.must(Unpack(context.Background(), openImage(t, image), dst, UnpackOptions{}))
	}}
	if has(t, "unsquashfs", "squashfs-tools") {
		unpackers["unsquashfs"] = func(dst string) { run(t, "unsquashfs", "-q", "-n", "-d", dst, image) }
	}
	for name, unpack := range unpackers {
		dst := filepath.Join(tempDir(t), name)
		unpack(dst)
		f, err := os.Open(filepath.Join(dst, "big"))
		g.must(err)
		defer f.Close()
		var st unix.Stat_t
		g.must(unix.Fstat(int(f.Fd()), &st))
		checkBig(name, f, st.Size)
		if st.Blocks > 1<<16 {
			t.Errorf("%s: the holes were filled", name)
		}
	}
}

// TestOffsetsBeyond4GiB puts all data behind a hole of 5 GiB in the image.
func TestOffsetsBeyond4GiB(t *testing.T) {
	g := newTree(t)
	for i := range 20 {
		g.file(fmt.Sprintf("f%d", i), text(i*40_000, uint64(i)))
	}
	o := WriteOptions{Codec: Gzip} // which needs no options next to the superblock
	spec, err := o.complete()
	g.must(err)
	tree, err := scan(t.Context(), g.root, &o, stamp{})
	g.must(err)
	image := filepath.Join(tempDir(t), "image.squashfs")
	f, err := os.Create(image)
	g.must(err)
	defer f.Close()
	out := newOutput(f)
	out.at, out.noAlloc = 5<<30, true
	p := newPacker(tree, out, spec, o, true)
	g.must(p.writeImage(t.Context()))
	g.must(p.check(t.Context()))
	verifyImage(t, image)
	checkAll(t, image, g.root)
}

// TestTooManyLinks needs no file system that allows so many.
func TestTooManyLinks(t *testing.T) {
	grow := func(links int) error {
		top := &node{mode: unix.S_IFDIR | 0o755}
		for i := range links {
			n := &node{parent: top, name: "f", mode: unix.S_IFREG | 0o644, nlink: 2, file: &file{}, stamp: stamp{dev: 1, ino: 7}}
			top.entries = append(top.entries, entry{fmt.Sprintf("f%05d", i), n})
		}
		_, err := plant("root", top)
		return err
	}
	if err := grow(65_535); err != nil {
		t.Error(err)
	}
	if err := grow(65_536); fault.KindOf(err) != fault.Invalid || !strings.Contains(fmt.Sprint(err), "65536 hard links") {
		t.Errorf("got %v", err)
	}
}

func TestTooManyOwners(t *testing.T) {
	ids := &idTable{byID: map[uint32]uint16{}}
	for i := range uint32(65_535) {
		if _, err := ids.index(i + 10); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ids.index(3); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
	if i, err := ids.index(11); i != 1 || err != nil {
		t.Errorf("%d, %v", i, err)
	}
}
