package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"testing/iotest"
)

func TestFileSystem(t *testing.T) {
	g := newTree(t)
	g.file("a/b/c.txt", text(300_000, 1))
	g.file("a/b/d.txt", []byte("hello"))
	g.file("a/empty", nil)
	g.dir("a/none")
	g.link("b/c.txt", "a/link")
	g.link("../a/b", "a/dirlink")
	for i := range 300 {
		g.file(fmt.Sprintf("many/%03d", i), text(i, 3))
	}
	image, _ := packTree(t, g.root, WriteOptions{})
	if err := fstest.TestFS(openImage(t, image), "a/b/c.txt", "a/b/d.txt", "a/empty", "a/none", "a/link", "many/299"); err != nil {
		t.Fatal(err)
	}
}

// More directories and entries than are known by their paths at a time.
func TestManyDirectories(t *testing.T) {
	g := newTree(t)
	for i := range maxPaths + 500 {
		for k := range 20 {
			g.file(fmt.Sprintf("%02d/%03d/%02d", i%40, i/40, k), nil)
		}
	}
	image, _ := packTree(t, g.root, WriteOptions{})
	m := openImage(t, image)
	for range 2 {
		seen := 0
		g.must(fs.WalkDir(m, ".", func(name string, d fs.DirEntry, err error) error {
			if seen++; err != nil {
				return err
			}
			info, err := m.Lstat(name)
			if err == nil && (info.IsDir() != d.IsDir() || info.Name() != d.Name()) {
				t.Errorf("%s is %v", name, info)
			}
			return err
		}))
		if want := 1 + 40 + (maxPaths+500)*21; seen != want {
			t.Errorf("%d entries, want %d", seen, want)
		}
		if _, err := m.Stat("07/001/nothing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what is not there: %v", err)
		}
	}
}

// Tables of a file are decoded ahead while its directories are listed; where a read may
// be a request, no more is read than was asked for.
func TestTablesAhead(t *testing.T) {
	g := newTree(t)
	for i := range 5000 {
		g.file(fmt.Sprintf("many/%04d", i), nil)
	}
	image, _ := packTree(t, g.root, WriteOptions{})
	f, err := os.Open(image)
	g.must(err)
	defer f.Close()
	remote, err := NewReader(f, fileSize(t, f), Limits{})
	g.must(err)
	for m, ahead := range map[*Image]bool{openImage(t, image): true, remote: false} {
		next := m.inodeTable.start
		asked := func() {
			_, end, err := m.metaBlock(&m.inodeTable, next)
			g.must(err)
			m.running.Wait()
			next = end
		}
		if asked(); m.meta.has(blockKey{at: next}) {
			t.Error("a block is there before anything was listed")
		}
		if _, err := m.ReadDir("many"); err != nil {
			t.Fatal(err)
		}
		m.running.Wait()
		for range 2 {
			if asked(); m.meta.has(blockKey{at: next}) != ahead {
				t.Errorf("a block is there: %v, want %v", !ahead, ahead)
			}
		}
	}
}

func TestLinksAreFollowedInside(t *testing.T) {
	g := newTree(t)
	g.file("real/file", []byte("content"))
	g.link("real", "l1")
	g.link("l1/file", "l2")
	g.link("../../real/file", "real/out")
	g.link("/etc/passwd", "absolute")
	g.link("loop", "loop")
	g.link("../real/./file", "real/up")
	image, _ := packTree(t, g.root, WriteOptions{})
	m := openImage(t, image)
	for name, want := range map[string]error{
		"l2": nil, "l1/file": nil, "l1/up": nil,
		"real/out": fs.ErrNotExist, "absolute": fs.ErrNotExist, "loop": errTooDeep, "real/file/x": errNotDir, "none": fs.ErrNotExist,
		"": fs.ErrInvalid, "/real": fs.ErrInvalid, "real/": fs.ErrInvalid, "real/../real": fs.ErrInvalid,
	} {
		data, err := m.ReadFile(name)
		if !errors.Is(err, want) || err == nil && string(data) != "content" {
			t.Errorf("%q: %q, %v, want %v", name, data, err, want)
		}
	}
	if target, err := m.ReadLink("absolute"); target != "/etc/passwd" || err != nil {
		t.Errorf("%q, %v", target, err)
	}
	if _, err := m.ReadLink("real/file"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if info, err := m.Lstat("l2"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("%v, %v", info, err)
	}
}

func TestReadingAFile(t *testing.T) {
	g := newTree(t)
	want := text(700_003, 5)
	clear(want[200_000:400_000]) // holes
	g.file("file", want)
	image, _ := packTree(t, g.root, WriteOptions{BlockSize: 32 << 10})
	m := openImage(t, image)
	open := func() *File {
		f, err := m.Open("file")
		g.must(err)
		return f.(*File)
	}
	if err := iotest.TestReader(open(), want); err != nil {
		t.Error(err)
	}
	var all bytes.Buffer
	f := open()
	if _, err := f.Seek(12_345, io.SeekStart); err != nil {
		t.Error(err)
	}
	if n, err := f.WriteTo(&all); n != int64(len(want)-12_345) || err != nil || !bytes.Equal(all.Bytes(), want[12_345:]) {
		t.Errorf("WriteTo: %d, %v", n, err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			buf := make([]byte, 50_000)
			for off := i * 1000; off < len(want); off += 77_777 {
				n, err := f.ReadAt(buf, int64(off))
				if !bytes.Equal(buf[:n], want[off:off+n]) || n < len(buf) && err != io.EOF {
					t.Errorf("at %d: %d, %v", off, n, err)
				}
			}
		})
	}
	group.Wait()
	if _, err := f.Seek(-1, io.SeekStart); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	f.Close()
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestReadFileHasALimit(t *testing.T) {
	g := newTree(t)
	g.file("file", make([]byte, 1000))
	image, _ := packTree(t, g.root, WriteOptions{})
	f, err := os.Open(image)
	g.must(err)
	defer f.Close()
	m, err := NewReader(f, fileSize(t, f), Limits{ReadFile: 999})
	g.must(err)
	if _, err := m.ReadFile("file"); err == nil {
		t.Error("a file beyond the limit was read")
	}
}

func fileSize(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// counting counts the reads of an image.
type counting struct {
	io.ReaderAt
	mu    sync.Mutex
	reads int
	bytes int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	c.bytes += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

// TestFewReads reads one file of a large image, as from a remote place.
func TestFewReads(t *testing.T) {
	g := newTree(t)
	for i := range 3000 {
		g.file(fmt.Sprintf("prefix%02d/lib/file%04d", i%50, i), text(500, uint64(i)))
	}
	g.file("meta/env.json", []byte("{}"))
	image, _ := packTree(t, g.root, WriteOptions{})
	f, err := os.Open(image)
	g.must(err)
	defer f.Close()
	r := &counting{ReaderAt: f}
	m, err := NewReader(r, fileSize(t, f), Limits{})
	g.must(err)
	if data, err := m.ReadFile("meta/env.json"); string(data) != "{}" || err != nil {
		t.Fatalf("%q, %v", data, err)
	}
	if r.reads > 12 || r.bytes > 256<<10 {
		t.Errorf("%d reads, %d bytes", r.reads, r.bytes)
	}
}

// An entry of a table costs the block that it is in: where a read is a request, what
// follows may not be here.
func TestLookupReadsOneBlock(t *testing.T) {
	g := newTree(t)
	for i := range 1100 {
		g.file(fmt.Sprintf("file%04d", i), noise(3000, uint64(i)))
	}
	image, _ := packTree(t, g.root, WriteOptions{BlockSize: 4096})
	f, err := os.Open(image)
	g.must(err)
	defer f.Close()
	var ends []int64
	m, err := NewReader(readerAt(func(p []byte, off int64) (int, error) {
		ends = append(ends, off+int64(len(p)))
		return f.ReadAt(p, off)
	}), fileSize(t, f), Limits{})
	g.must(err)
	fragments, err := m.fragments()
	g.must(err)
	if len(fragments.pointers) != 3 {
		t.Fatalf("%d blocks of fragments", len(fragments.pointers))
	}
	for block, end := range append(fragments.pointers[1:], uint64(fragments.end)) {
		ends = nil
		if _, err := fragments.get(uint32(block * metaSize / fragmentEntrySize)); err != nil {
			t.Fatal(err)
		}
		if want := []int64{int64(end)}; !slices.Equal(ends, want) {
			t.Errorf("block %d: read up to %d, want %d", block, ends, want)
		}
	}
}

// TestForeignImages reads what mksquashfs makes, with each of its compressors.
func TestForeignImages(t *testing.T) {
	if !has(t, "mksquashfs", "squashfs-tools") {
		t.Skip("needs mksquashfs")
	}
	g := mixedTree(t)
	for i := range 400 {
		g.file(fmt.Sprintf("many/%d", i), text(i, uint64(i)))
	}
	g.xattr("zero", "user.large", string(text(2500, 1))) // stored out of line
	want, err := describeDir(g.root)
	g.must(err)
	for name, args := range map[string][]string{
		"zstd":      {"-comp", "zstd"},
		"gzip":      {"-comp", "gzip"},
		"xz":        {"-comp", "xz"},
		"lz4":       {"-comp", "lz4"},
		"lzo":       {"-comp", "lzo"},
		"lzo-1M":    {"-comp", "lzo", "-Xalgorithm", "lzo1x_1_15", "-b", "1M"},
		"raw":       {"-noI", "-noD", "-noF", "-noX", "-noId"},
		"tails":     {"-comp", "zstd", "-always-use-fragments", "-b", "4K"},
		"plain":     {"-no-fragments", "-no-exports", "-no-duplicates", "-b", "1M"},
		"lz4hc-64K": {"-comp", "lz4", "-Xhc", "-b", "64K"},
	} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(tempDir(t), "image")
			run(t, "mksquashfs", append([]string{g.root, image, "-quiet", "-no-progress"}, args...)...)
			verifyImage(t, image)
			got, err := describeImage(openImage(t, image))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "own reader", got, want)
		})
	}
	for name, text := range map[string]string{"lzma": "compressed with lzma cannot be read"} {
		image := filepath.Join(tempDir(t), name)
		run(t, "mksquashfs", g.path("include"), image, "-quiet", "-no-progress", "-comp", name)
		if _, err := Open(image); err == nil || !bytes.Contains([]byte(err.Error()), []byte(text)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
