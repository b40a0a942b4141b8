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

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
	"uenv-ci.dev/internal/squashfs"
)

// counting counts what is read.
type counting struct {
	r               io.ReaderAt
	single          bool // many parts at once are not to be had
	requests, bytes atomic.Int64
}

func (c *counting) ReadParts(spans []registry.Span) ([][]byte, error) {
	if c.single {
		return nil, fault.New(fault.Refused, "one by one")
	}
	c.requests.Add(1)
	parts := make([][]byte, len(spans))
	for i, s := range spans {
		if i > 0 && s.Offset <= spans[i-1].Offset+spans[i-1].Length {
			return nil, fmt.Errorf("parts that touch or are out of order: %v", spans)
		}
		parts[i] = make([]byte, s.Length)
		if _, err := c.r.ReadAt(parts[i], s.Offset); err != nil {
			return nil, err
		}
		c.bytes.Add(s.Length)
	}
	return parts, nil
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
	for _, c := range []struct {
		name, top string
		prefixes  int
	}{{"near", "linux-sles15-zen2", 400}, {"far", "software", 700}} {
		path := filepath.Join(t.TempDir(), "image")
		if _, err := Pack(t.Context(), largeStore(t, c.top, c.prefixes), path, PackOptions{Created: time.Unix(1_700_000_000, 0)}); err != nil {
			t.Fatal(err)
		}
		t.Run(c.name, func(t *testing.T) { lookIsCheap(t, path, false, 3) })
		t.Run(c.name+", one part at a time", func(t *testing.T) { lookIsCheap(t, path, true, 6) })
	}
}

func lookIsCheap(t *testing.T, path string, single bool, most int64) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{r: bytes.NewReader(data), single: single}
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
	if c.requests.Load() > most || c.bytes.Load() > 256<<10 {
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

func anySpan(r *rand.Rand) registry.Span {
	return registry.Span{Offset: r.Int64N(420_000) - 10_000, Length: r.Int64N(30_000)}
}

// In all a look takes a few requests, from the tag on: those that ask what is attached
// to the image are among them.
func TestRequestsOfALook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if _, err := Pack(t.Context(), largeStore(t, "software", 700), path, PackOptions{Created: time.Unix(1_700_000_000, 0)}); err != nil {
		t.Fatal(err)
	}
	var seen registrytest.Counter
	address := registrytest.Start(t, registrytest.Docker, seen.Middleware())
	repo := func() *registry.Repository {
		reg, err := registry.Open(address, registry.Options{})
		if err != nil {
			t.Fatal(err)
		}
		repo, err := reg.Repository("build/daint/gh200/large/1")
		if err != nil {
			t.Fatal(err)
		}
		return repo
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	layer := registry.FileLayer(path, meta.ImageTitle, digest.FromBytes(data), int64(len(data)))
	d, err := repo().Push(t.Context(), registry.Artifact{Type: meta.TypeImage, Layers: []registry.Layer{layer}})
	if err == nil {
		err = repo().Tag(t.Context(), d, "1")
	}
	if err != nil {
		t.Fatal(err)
	}
	seen.Reset()
	r := repo()
	d, err = r.Resolve(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := r.Referrers(t.Context(), d, ""); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	if env, err := EnvInside(t.Context(), r, layer.Descriptor); err != nil || env.Mount != "/user-environment" {
		t.Fatalf("%+v, %v", env, err)
	}
	if seen.Count("") > 6 || seen.Bytes() > 256<<10 {
		t.Errorf("%d requests of %d bytes:\n%s", seen.Count(""), seen.Bytes(), &seen)
	}
}

func TestWindowReadsWhatIsThere(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	data := make([]byte, 400_000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	w := &window{r: &counting{r: bytes.NewReader(data)}, size: int64(len(data)), dataEnd: 50_000,
		tables: squashfs.Tables{Start: 50_000, Listings: 150_000, Pointers: 333_000, Fragments: 333_333}}
	for i := range 3000 {
		if i%50 == 0 {
			w.readAhead(anySpan(r), anySpan(r), anySpan(r))
		}
		off, n := r.IntN(len(data)+10), r.IntN(20_000)
		b := make([]byte, n)
		got, err := w.ReadAt(b, int64(off))
		want := data[min(off, len(data)):min(off+n, len(data))]
		if !bytes.Equal(b[:got], want) || (err == nil) != (got == n) {
			t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
		}
	}
}
