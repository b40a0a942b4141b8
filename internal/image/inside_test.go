package image

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/squashfs"
)

// counting counts what is read.
type counting struct {
	r               io.ReaderAt
	requests, bytes atomic.Int64
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	c.requests.Add(1)
	c.bytes.Add(int64(len(b)))
	return c.r.ReadAt(b, off)
}

// largeStore is a tree like an installed store: many prefixes, and metadata.
func largeStore(t testing.TB, top string, prefixes int) string {
	t.Helper()
	root := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	write := func(name string, size int) {
		t.Helper()
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.UintN(40))
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range prefixes {
		for k := range 20 {
			write(fmt.Sprintf("%s/gcc-13.2.0/package-%04d/lib/file-%02d", top, i, k), 500+k*40)
		}
	}
	for i := range 30 {
		write(fmt.Sprintf("modules/m%02d", i), 900)
		write(fmt.Sprintf("env/default/bin/p%02d", i), 100)
		write(fmt.Sprintf("meta/recipe/f%02d.yaml", i), 2000)
		write(fmt.Sprintf("repo/packages/p%02d/package.py", i), 1500)
	}
	env := `{"name":"large","description":"","mount":"/user-environment","views":{}}`
	if err := os.WriteFile(filepath.Join(root, meta.EnvFile), []byte(env), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestLookIsCheap looks into images whose metadata are near the end of all tables,
// as names have it, and far from it.
func TestLookIsCheap(t *testing.T) {
	t.Run("near", func(t *testing.T) { lookIsCheap(t, "linux-sles15-zen2", 400) })
	t.Run("far", func(t *testing.T) { lookIsCheap(t, "software", 700) })
}

func lookIsCheap(t *testing.T, top string, prefixes int) {
	store := largeStore(t, top, prefixes)
	path := filepath.Join(t.TempDir(), "image")
	if _, err := Pack(t.Context(), store, path, PackOptions{Created: time.Unix(1_700_000_000, 0)}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{r: bytes.NewReader(data)}
	m, err := look(c, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	got, err := m.ReadFile(meta.EnvFile)
	if err != nil || !bytes.Contains(got, []byte("large")) {
		t.Fatalf("%q, %v", got, err)
	}
	t.Logf("%d requests, %d bytes, of %d", c.requests.Load(), c.bytes.Load(), len(data))
	if c.requests.Load() > 6 || c.bytes.Load() > 256<<10 {
		t.Errorf("%d requests of %d bytes", c.requests.Load(), c.bytes.Load())
	}
	// All of it is read as from a file, if it comes to that.
	whole, err := squashfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	seen := 0
	err = fs.WalkDir(m, "meta", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		a, aErr := m.ReadFile(name)
		b, bErr := whole.ReadFile(name)
		if !bytes.Equal(a, b) || aErr != nil || bErr != nil {
			t.Errorf("%s: other content, %v, %v", name, aErr, bErr)
		}
		return nil
	})
	if err != nil || seen != 31 {
		t.Errorf("%d files: %v", seen, err)
	}
	if err := squashfs.Verify(t.Context(), m, nil); err != nil {
		t.Error(err)
	}
}

func TestWindowReadsWhatIsThere(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	data := make([]byte, 400_000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	w := &window{r: bytes.NewReader(data), size: int64(len(data)), dataEnd: 50_000,
		tables: squashfs.Tables{Start: 50_000, Listings: 150_000, Pointers: 333_000, Fragments: 333_333}}
	for range 3000 {
		off, n := r.IntN(len(data)+10), r.IntN(20_000)
		b := make([]byte, n)
		got, err := w.ReadAt(b, int64(off))
		want := data[min(off, len(data)):min(off+n, len(data))]
		if !bytes.Equal(b[:got], want) || (err == nil) != (got == n) {
			t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
		}
	}
}
