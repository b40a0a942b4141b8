package squashfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// smallImage returns an image with something of everything, in few bytes.
func smallImage(t testing.TB, codec Codec) []byte {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(root+"/a/b/c", 0o755))
	must(os.MkdirAll(root+"/many", 0o755))
	for i := range 60 {
		must(os.WriteFile(fmt.Sprintf("%s/many/%s%02d", root, strings.Repeat("n", 150), i), text(i*3, uint64(i)), 0o644))
	}
	must(os.WriteFile(root+"/a/file", text(20_000, 1), 0o600))
	must(os.WriteFile(root+"/a/b/holes", append(make([]byte, 12_288), "end"...), 0o600))
	must(os.Link(root+"/a/file", root+"/a/b/c/hard"))
	must(os.Symlink("../file", root+"/a/b/link"))
	grower{root: root, t: asT(t)}.xattr("a/file", "user.note", "a note")
	f, err := os.Create(t.TempDir() + "/image")
	must(err)
	defer f.Close()
	_, err = Write(context.Background(), root, f, WriteOptions{Codec: codec, BlockSize: 4096, ForceOwner: &Owner{}})
	must(err)
	data, err := os.ReadFile(f.Name())
	must(err)
	return data
}

// asT gives fuzz targets the helpers of tests, which only log and fail.
func asT(t testing.TB) *testing.T {
	if t, ok := t.(*testing.T); ok {
		return t
	}
	return &testing.T{}
}

// readAll does all that can be done with an image.
func readAll(ctx context.Context, data []byte) error {
	_, err := workOf(ctx, data)
	return err
}

// work is what reading an image takes, in numbers that are the same on every
// machine.
type work struct {
	entries   int   // met by a walk
	reads     int64 // of the image
	read      int64 // bytes of it
	decoded   int64 // bytes that were decompressed
	delivered int64 // bytes of content, holes included
}

// mostWork is far above what mutated images of this size take, and far below what
// any processor does in a second, though the slowest decoder made but 20 MB of it.
var mostWork = work{entries: 1000, reads: 10_000, read: 8 << 20, decoded: 8 << 20, delivered: 128 << 20}

func (w work) over(limit work) bool {
	return w.entries > limit.entries || w.reads > limit.reads || w.read > limit.read || w.decoded > limit.decoded || w.delivered > limit.delivered
}

func (w *work) atLeast(o work) {
	w.entries, w.reads, w.read = max(w.entries, o.entries), max(w.reads, o.reads), max(w.read, o.read)
	w.decoded, w.delivered = max(w.decoded, o.decoded), max(w.delivered, o.delivered)
}

// meteredReader and meteredDecoder count work on several goroutines.
type meteredReader struct {
	io.ReaderAt
	reads, bytes atomic.Int64
}

func (r *meteredReader) ReadAt(b []byte, off int64) (int, error) {
	r.reads.Add(1)
	r.bytes.Add(int64(len(b)))
	return r.ReaderAt.ReadAt(b, off)
}

type meteredDecoder struct {
	decoder
	bytes atomic.Int64
}

// decode counts all of dst: what a failing decoder did is not known.
func (d *meteredDecoder) decode(dst, src []byte) (int, error) {
	n, err := d.decoder.decode(dst, src)
	if err != nil {
		n = len(dst)
	}
	d.bytes.Add(int64(n))
	return n, err
}

func workOf(ctx context.Context, data []byte) (w work, err error) {
	limits := Limits{CacheBytes: 1 << 20, MetaBytes: 1 << 20, DirEntries: 10_000, Entries: 20_000, FileBlocks: 10_000, ReadFile: 1 << 20}
	r := &meteredReader{ReaderAt: bytes.NewReader(data)}
	m, err := NewReader(r, int64(len(data)), limits)
	if err != nil {
		return w, err
	}
	defer m.Close()
	d := &meteredDecoder{decoder: m.decoder}
	m.decoder = d
	defer func() {
		w.reads, w.read, w.decoded = r.reads.Load(), r.bytes.Load(), d.bytes.Load()
	}()
	errEnough := errors.New("enough")
	walked := fs.WalkDir(m, ".", func(name string, d fs.DirEntry, err error) error {
		if w.entries++; w.entries > 20_000 || ctx.Err() != nil {
			return errEnough
		}
		if err != nil {
			return nil
		}
		if _, err := d.Info(); err != nil {
			return nil
		}
		f, err := m.Open(name)
		if err != nil {
			return nil
		}
		defer f.Close()
		n, _ := io.CopyN(io.Discard, f, 1<<20)
		content, _ := m.ReadFile(name)
		w.delivered += n + int64(len(content))
		m.ReadLink(name)
		return nil
	})
	if walked == errEnough {
		return w, walked
	}
	return w, Verify(ctx, m, nil)
}

func TestVerifyTellsProgress(t *testing.T) {
	data := smallImage(t, Zstd)
	m, err := NewReader(bytes.NewReader(data), int64(len(data)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []event.Kind
	if err := Verify(t.Context(), m, func(e event.Event) { kinds = append(kinds, e.Kind) }); err != nil {
		t.Fatal(err)
	}
	if kinds[0] != event.Started || kinds[len(kinds)-1] != event.Done {
		t.Errorf("%v", kinds)
	}
}

func TestVerifyStops(t *testing.T) {
	data := smallImage(t, Gzip)
	m, err := NewReader(bytes.NewReader(data), int64(len(data)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Verify(ctx, m, nil); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("got %v", err)
	}
}

func TestTruncatedImages(t *testing.T) {
	for _, codec := range []Codec{Zstd, None} {
		data := smallImage(t, codec)
		for size := 0; size < len(data)-imageAlign; size += 97 {
			err := readAll(t.Context(), data[:size])
			if fault.KindOf(err) != fault.Invalid {
				t.Fatalf("%s cut to %d of %d: %v", codec, size, len(data), err)
			}
		}
	}
}

// TestFlippedBits changes each byte of an image, or some of them, and expects
// verification to find most changes, and never a panic or a hang.
func TestFlippedBits(t *testing.T) {
	for _, codec := range []Codec{Zstd, Gzip, None} {
		data := smallImage(t, codec)
		step, found, tried := 61, 0, 0
		if sweep() {
			step = 1
		}
		for at := 0; at < len(data); at += step {
			changed := bytes.Clone(data)
			changed[at] ^= 1 << (at % 8)
			tried++
			if failed, _ := mutationFails(t, changed, fmt.Sprintf("%s, byte %d", codec, at)); failed {
				found++
			}
		}
		t.Logf("%s: %d of %d changes found", codec, found, tried)
		if least := map[Codec]int{Zstd: 50, Gzip: 60, None: 20}[codec]; found*100/tried < least {
			t.Errorf("%s: only %d of %d changes found", codec, found, tried)
		}
	}
}

// TestMutatedImages writes random bytes over random places.
func TestMutatedImages(t *testing.T) {
	count := 5000
	if sweep() {
		count = 50_000
	}
	largest, most, slowest := uint64(0), work{}, time.Duration(0)
	images := map[Codec][]byte{Zstd: smallImage(t, Zstd), Gzip: smallImage(t, Gzip), None: smallImage(t, None)}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range count {
		codec := []Codec{Zstd, Gzip, None, None}[i%4]
		data := bytes.Clone(images[codec])
		for range 1 + r.IntN(4) {
			at, size := r.IntN(len(data)), 1+r.IntN(8)
			if r.IntN(3) == 0 {
				at = r.IntN(superblockSize)
			}
			for k := at; k < min(at+size, len(data)); k++ {
				data[k] = []byte{0, 0xff, 0x80, byte(r.Uint32())}[r.IntN(4)]
			}
		}
		before, start := allocated(), time.Now()
		_, w := mutationFails(t, data, fmt.Sprintf("%s, mutation %d", codec, i))
		slowest = max(slowest, time.Since(start))
		largest = max(largest, allocated()-before)
		most.atLeast(w)
	}
	t.Logf("for one image at most %d bytes were allocated, and %+v; the slowest took %v here", largest, most, slowest)
	if largest > maxMutationBytes {
		t.Errorf("%d bytes were allocated for one image", largest)
	}
}

// maxMutationBytes is far above what the limits of readAll allow for at one time,
// and far below what an image can claim to need: this counts what is freed as well.
const maxMutationBytes = 64 << 20

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// mutationFails tells whether reading an image gives an error, and what work it
// was. It fails the test if that is more than any image of this size can ask for.
// The time is no measure of that on a machine that others use, but an end.
func mutationFails(t *testing.T, data []byte, what string) (bool, work) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w, err := workOf(ctx, data)
	if ctx.Err() != nil {
		t.Fatalf("%s: hangs", what)
	}
	if w.over(mostWork) {
		t.Fatalf("%s: %+v", what, w)
	}
	return err != nil, w
}

// patched returns an image with one change, made where the old bytes stand.
func patched(t *testing.T, data, old, replaced []byte) []byte {
	t.Helper()
	if bytes.Count(data, old) != 1 {
		t.Fatalf("%q is %d times in the image", old, bytes.Count(data, old))
	}
	return bytes.Replace(data, old, replaced, 1)
}

// TestHostileDirectories makes directories that are no tree.
func TestHostileDirectories(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.MkdirAll(root+"/"+name+"/below-"+name[:1], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(t.TempDir() + "/image")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Write(t.Context(), root, f, WriteOptions{Codec: None}); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(f.Name())
	m, err := NewReader(bytes.NewReader(data), int64(len(data)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	// An entry is offset, number difference, type, size of the name, name.
	entryOf := func(dir, name string) (entry []byte) {
		t.Helper()
		d, err := m.resolve(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		e, ok, err := m.find(d, name)
		if !ok || err != nil {
			t.Fatal(name, err)
		}
		return append([]byte{byte(e.ref), byte(e.ref >> 8)}, data[bytes.Index(data, []byte(name))-6:][:6+len(name)]...)
	}
	one, two, sub := entryOf(".", "one"), entryOf(".", "two"), entryOf("one", "below-o")
	for name, change := range map[string][]byte{
		"the same directory twice":     patched(t, data, two, append(bytes.Clone(one[:6]), two[6:]...)),
		"a directory inside of itself": patched(t, data, sub, append(bytes.Clone(one[:2]), sub[2:]...)),
		"dot dot":                      patched(t, data, two, append(bytes.Clone(two[:6]), 1, 0, '.', '.', 0)),
		"a slash":                      patched(t, data, two[8:], []byte("t/o")),
		"a zero":                       patched(t, data, two[8:], []byte("t\x00o")),
		"names out of order":           patched(t, data, two[8:], []byte("aaa")),
		"the same name twice":          patched(t, data, two[8:], []byte("one")),
	} {
		if bytes.Equal(change, data) {
			t.Errorf("%s: nothing was changed", name)
		}
		refused(t, name, change)
	}
}

// refused expects that an image is read and unpacked up to what is wrong in it.
func refused(t *testing.T, name string, image []byte) {
	t.Helper()
	if err := readAll(t.Context(), image); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%s: got %v", name, err)
	}
	m, err := NewReader(bytes.NewReader(image), int64(len(image)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	dst := t.TempDir() + "/dst"
	if err := Unpack(t.Context(), m, dst, UnpackOptions{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%s: unpack: got %v", name, err)
	}
	if _, err := os.Lstat(dst); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: unpack left something", name)
	}
}

// TestEveryBitOfTheTables changes each bit of the superblock and of all that stands
// behind the listings. What may go unnoticed is what docs/design.md says.
func TestEveryBitOfTheTables(t *testing.T) {
	data := smallImage(t, None)
	m, err := NewReader(bytes.NewReader(data), int64(len(data)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := m.idTable()
	if err != nil {
		t.Fatal(err)
	}
	xattrs, err := m.xattrs()
	if err != nil || m.sb.XattrTable == noTable {
		t.Skipf("the file system of %s has no attributes: %v", os.TempDir(), err)
	}
	fragments, err := m.fragments()
	if err != nil {
		t.Fatal(err)
	}
	unnoticed := map[int64]string{20: "the compressor of an image that is not compressed", 24: "flags", 25: "flags"}
	allow := func(what string, at, size int64) {
		for k := range size {
			unnoticed[at+k] = what
		}
	}
	allow("time", 8, 4)
	allow("owners", int64(ids.pointers[0])+metaHeader, idEntrySize*int64(ids.count))
	allow("texts of attributes", xattrs.values.start+metaHeader, int64(xattrs.sets.pointers[0])-xattrs.values.start-metaHeader)
	allow("an unused field", int64(m.sb.XattrTable)+12, 4)
	for k := range int64(fragments.count) {
		allow("an unused field", int64(fragments.pointers[0])+metaHeader+k*fragmentEntrySize+12, 4)
	}
	start := int64(fragments.pointers[0])
	for at := range int64(m.sb.BytesUsed) {
		if at >= superblockSize && at < start {
			continue
		}
		for bit := range 8 {
			changed := bytes.Clone(data)
			changed[at] ^= 1 << bit
			m, err := NewReader(bytes.NewReader(changed), int64(len(changed)), Limits{})
			if err == nil {
				err = Verify(t.Context(), m, nil)
			}
			if err == nil && unnoticed[at] == "" {
				t.Errorf("bit %d of byte %d, %d behind the listings: nothing is noticed", bit, at, at-start)
			}
			if err != nil && fault.KindOf(err) != fault.Invalid {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
		}
	}
}

// TestBlocksDoNotOverlap moves a file's content to where another one's begins.
func TestBlocksDoNotOverlap(t *testing.T) {
	g := newTree(t)
	g.file("one", text(8192, 1))
	g.file("two", text(8192, 2))
	image, _ := packTree(t, g.root, WriteOptions{Codec: None, BlockSize: 4096})
	data, err := os.ReadFile(image)
	g.must(err)
	m := openImage(t, image)
	two, err := m.resolve("two", false)
	g.must(err)
	at := int(m.sb.InodeTable) + metaHeader + int(two.ref&0xffff) + inodeHead
	if got := binary.LittleEndian.Uint32(data[at:]); uint64(got) != two.start {
		t.Fatalf("no start of a file but %d", got)
	}
	binary.LittleEndian.PutUint32(data[at:], uint32(two.start)-100)
	m, err = NewReader(bytes.NewReader(data), int64(len(data)), Limits{})
	g.must(err)
	if err := Verify(t.Context(), m, nil); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "inside of another") {
		t.Errorf("got %v", err)
	}
}

// TestIndexIsChecked changes each byte of a directory's index.
func TestIndexIsChecked(t *testing.T) {
	g := newTree(t)
	for i := range 3000 {
		g.file(fmt.Sprintf("many/%05d", i), nil)
	}
	image, _ := packTree(t, g.root, WriteOptions{Codec: None})
	data, err := os.ReadFile(image)
	g.must(err)
	m := openImage(t, image)
	dir, err := m.resolve("many", false)
	g.must(err)
	c, err := m.cursor(&m.inodeTable, dir.rest.block, dir.rest.offset)
	g.must(err)
	start := c.at + metaHeader + int64(c.off)
	for range dir.indexed {
		_, _, err := readIndexEntry(&c)
		g.must(err)
	}
	end := c.at + metaHeader + int64(c.off)
	if dir.indexed < 4 || end-start != int64(dir.indexed)*(dirIndexSize+5) {
		t.Fatalf("%d entries in %d bytes, not in one block", dir.indexed, end-start)
	}
	for at := start; at < end; at++ {
		changed := bytes.Clone(data)
		changed[at] ^= 1 << (at % 8)
		m, err := NewReader(bytes.NewReader(changed), int64(len(changed)), Limits{})
		g.must(err)
		if err := Verify(t.Context(), m, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("byte %d of the index: got %v", at-start, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, codec := range []Codec{Zstd, Gzip, None} {
		f.Add(smallImage(f, codec))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		readAll(ctx, data)
		if ctx.Err() != nil {
			t.Fatal("hangs")
		}
	})
}
