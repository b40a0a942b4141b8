package squashfs

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestExtentsAreTheStoredBlocks(t *testing.T) {
	root := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	noise := rand.NewChaCha8([32]byte{3})
	for i := range 60 {
		data := make([]byte, random.IntN(400_000))
		_, _ = noise.Read(data)
		if err := os.WriteFile(filepath.Join(root, strconv.Itoa(i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(root, "0"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.squashfs")
	summary, err := Pack(t.Context(), root, file, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	extents, err := m.Extents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	end, total := int64(superblockSize), int64(0)
	for _, e := range extents {
		if e.Offset < end || e.Length <= 0 || e.Length > defaultBlockSize {
			t.Fatalf("%+v after %d", e, end)
		}
		end, total = e.Offset+e.Length, total+e.Length
	}
	// Noise does not compress: nearly all of the image is blocks, one after the other.
	if end > summary.Size || total < summary.Size-16<<10 {
		t.Errorf("%d bytes in %d extents up to %d, of %d", total, len(extents), end, summary.Size)
	}
}
