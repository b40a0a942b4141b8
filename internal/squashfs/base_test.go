package squashfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"uenv-ci.dev/internal/event"
)

// packOver packs a tree with and without a base, expects the same image, and
// returns how many bytes of it were copied.
func packOver(t *testing.T, root, base string, o WriteOptions) int64 {
	t.Helper()
	_, want := packTree(t, root, o)
	o.Base, o.KeepBlocks = base, true
	image, got := packTree(t, root, o)
	if got.Digest != want.Digest {
		t.Errorf("with the base %s, without %s", got.Digest, want.Digest)
	}
	if _, err := readTable(image); err != nil {
		t.Errorf("table of the new image: %v", err)
	}
	return got.Reused
}

// TestBaseChangesNothing packs random trees over images of other states of them.
func TestBaseChangesNothing(t *testing.T) {
	rounds := 20
	if sweep() {
		rounds = 300
	}
	for i := range rounds {
		r := rand.New(rand.NewPCG(uint64(i), 11))
		o := WriteOptions{BlockSize: 4096 << r.IntN(4), Codec: []Codec{Zstd, Zstd, Gzip, None}[r.IntN(4)], Time: testTime}
		g := newTree(t)
		growRandom(g, r, o.BlockSize)
		for k := range 30 {
			g.file(fmt.Sprintf("dir%d/f%d", k%5, k), text(r.IntN(3*o.BlockSize)+1, uint64(i*100+k)))
		}
		keep := o
		keep.KeepBlocks = true
		first, s := packTree(t, g.root, keep)
		if reused := packOver(t, g.root, first, o); reused == 0 || reused > s.Size {
			t.Errorf("tree %d: %d bytes of %d reused of the same tree", i, reused, s.Size)
		}
		for k := range 4 {
			g.file(fmt.Sprintf("dir%d/f%d", k%3, r.IntN(40)), randomContent(r, o.BlockSize))
		}
		g.must(os.RemoveAll(g.path("dir3")))
		packOver(t, g.root, first, o)
	}
}

// TestUselessBases packs over bases that are damaged or not ours: nothing comes of
// that but a warning.
func TestUselessBases(t *testing.T) {
	g := mixedTree(t)
	for k := range 60 {
		g.file(fmt.Sprintf("many%d/f%d", k%7, k), text(k*100, uint64(k)))
	}
	o := WriteOptions{BlockSize: 4096, Time: testTime, KeepBlocks: true}
	image, _ := packTree(t, g.root, o)
	content, err := os.ReadFile(image)
	g.must(err)
	table, err := os.ReadFile(image + TableSuffix)
	g.must(err)
	other := o
	other.Level = 9
	foreign, _ := packTree(t, g.root, other)
	foreignTable, err := os.ReadFile(foreign + TableSuffix)
	g.must(err)
	flipped := func(data []byte, every int) []byte {
		data = slices.Clone(data)
		for i := every / 2; i < len(data); i += every {
			data[i] ^= 0x40
		}
		return data
	}
	stored := int64(0)
	for _, c := range []struct {
		name         string
		image, table []byte
		mode         os.FileMode
		warns        bool
		reuses       int // 0 nothing, 1 that some blocks do not pack, 2 packed blocks
	}{
		{"image empty", nil, table, 0o600, false, 1}, // first: tells how much 1 is
		{"as it was", content, table, 0o600, false, 2},
		{"one byte of the table", content, flipped(table, len(table)), 0o600, true, 0},
		{"table cut", content, table[:len(table)/2], 0o600, true, 0},
		{"table nearly empty", content, table[:3], 0o600, true, 0},
		{"table readable by others", content, table, 0o644, true, 0},
		{"another level", content, foreignTable, 0o600, true, 0},
		{"every block damaged", flipped(content, 32), table, 0o600, false, 1},
		{"image cut", content[:len(content)/2], table, 0o600, false, 2},
		{"another image", flipped(content, 1), table, 0o600, false, 1},
	} {
		base := filepath.Join(tempDir(t), "base")
		g.must(os.WriteFile(base, c.image, 0o600))
		g.must(os.WriteFile(base+TableSuffix, c.table, 0o600))
		g.must(os.Chmod(base+TableSuffix, c.mode))
		o := WriteOptions{BlockSize: 4096, Time: testTime}
		warnings := 0
		o.Events = func(e event.Event) {
			if e.Kind == event.Warning {
				warnings++
			}
		}
		reused := packOver(t, g.root, base, o)
		if c.name == "image empty" {
			stored = reused
		}
		want := map[int]bool{0: reused == 0, 1: reused == stored, 2: reused > stored}
		if warnings > 0 != c.warns || !want[c.reuses] {
			t.Errorf("%s: %d warnings, %d bytes reused", c.name, warnings, reused)
		}
	}
	if reused := packOver(t, g.root, filepath.Join(tempDir(t), "none"), o); reused != 0 {
		t.Errorf("%d bytes reused of nothing", reused)
	}
}

// TestBaseWithoutTable packs over images that have no table beside them: one of
// ours is as good as with it, one that is not, or says so wrongly, is of no use.
func TestBaseWithoutTable(t *testing.T) {
	g := mixedTree(t)
	for k := range 60 {
		g.file(fmt.Sprintf("many%d/f%d", k%7, k), text(k*300, uint64(k)))
	}
	for _, codec := range []Codec{Zstd, Gzip, None} {
		o := WriteOptions{Codec: codec, BlockSize: 8192, Time: testTime}
		image, s := packTree(t, g.root, o)
		if reused := packOver(t, g.root, image, o); reused < s.Size/2 || reused > s.Size {
			t.Errorf("%s: %d bytes of %d reused", codec, reused, s.Size)
		}
	}
	o := WriteOptions{BlockSize: 8192, Time: testTime}
	other := o
	other.Level = 19
	image, _ := packTree(t, g.root, other)
	if reused := packOver(t, g.root, image, o); reused != 0 {
		t.Errorf("%d bytes reused of another level", reused)
	}
	content, err := os.ReadFile(image)
	g.must(err)
	lying := bytes.Replace(content, []byte("level=19 block=8192\n"), []byte("level=3 block=8192\n\x00"), 1)
	if bytes.Equal(lying, content) {
		t.Fatal("the image does not say its level")
	}
	g.must(os.WriteFile(image, lying, 0o600))
	if reused := packOver(t, g.root, image, o); reused != 0 {
		t.Errorf("%d bytes reused of an image that says another level than it has", reused)
	}
}

func FuzzDecodeTable(f *testing.F) {
	whole, err := (&blockTable{compressor: "zstd", blocks: map[sum]storedBlock{{1}: {at: 96, word: 5}}}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(tableHead))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := decodeTable(data)
		if err == nil && len(table.blocks) > len(data)/tableEntrySize {
			t.Errorf("%d blocks in %d bytes", len(table.blocks), len(data))
		}
	})
}
