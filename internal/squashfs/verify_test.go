package squashfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime/metrics"
	"strings"
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
	limits := Limits{CacheBytes: 1 << 20, MetaBytes: 1 << 20, DirEntries: 10_000, Entries: 20_000, FileBlocks: 10_000, ReadFile: 1 << 20}
	m, err := NewReader(bytes.NewReader(data), int64(len(data)), limits)
	if err != nil {
		return err
	}
	defer m.Close()
	entries := 0
	errEnough := errors.New("enough")
	walked := fs.WalkDir(m, ".", func(name string, d fs.DirEntry, err error) error {
		if entries++; entries > 20_000 || ctx.Err() != nil {
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
		io.CopyN(io.Discard, f, 1<<20)
		m.ReadFile(name)
		m.ReadLink(name)
		return nil
	})
	if walked == errEnough {
		return walked
	}
	return Verify(ctx, m, nil)
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
			if mutationFails(t, changed, fmt.Sprintf("%s, byte %d", codec, at)) {
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
	largest := uint64(0)
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
		before := allocated()
		mutationFails(t, data, fmt.Sprintf("%s, mutation %d", codec, i))
		largest = max(largest, allocated()-before)
	}
	t.Logf("at most %d bytes were allocated for one image", largest)
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

// mutationFails tells whether reading an image gives an error. It fails the test
// if that takes longer than any image of this size can.
func mutationFails(t *testing.T, data []byte, what string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := readAll(ctx, data)
	if ctx.Err() != nil {
		t.Fatalf("%s: hangs", what)
	}
	return err != nil
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
