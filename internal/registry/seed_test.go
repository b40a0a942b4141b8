package registry_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	. "uenv-ci.dev/internal/registrytest"
)

// What Seed brings is not fetched, at whatever borders it ends.
func TestSeed(t *testing.T) {
	content, l := randomBlob(6*mib + 100)
	var seen Counter
	p := at(t, Start(t, Referrers, seen.Middleware()))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	const all = 6*mib + 100
	errSeed := errors.New("on purpose")
	for name, c := range map[string]struct {
		spans []registry.Span
		err   error
		most  int64 // bytes that may be fetched
	}{
		"all":                  {spans: []registry.Span{{Offset: 0, Length: all}}, most: 0},
		"in pieces":            {spans: []registry.Span{{Offset: 0, Length: 100}, {Offset: 100, Length: 2 * mib}, {Offset: 50, Length: 10}, {Offset: 2*mib + 100, Length: 4 * mib}}, most: 0},
		"a gap":                {spans: []registry.Span{{Offset: 0, Length: 2*mib + 5}, {Offset: 3*mib - 5, Length: 3*mib + 105}}, most: mib},
		"the end":              {spans: []registry.Span{{Offset: 5*mib + 1, Length: mib + 99}}, most: 6 * mib},
		"less than a chunk":    {spans: []registry.Span{{Offset: 10, Length: mib}}, most: all},
		"nothing":              {most: all},
		"an error half-way":    {spans: []registry.Span{{Offset: 0, Length: 4 * mib}}, err: errSeed, most: 2*mib + 100},
		"chunks one after one": {spans: []registry.Span{{Offset: mib, Length: mib}, {Offset: 2 * mib, Length: mib}, {Offset: 4 * mib, Length: mib}}, most: 3*mib + 100},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.squashfs")
			err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(_ context.Context, f *os.File) ([]registry.Span, error) {
				for _, s := range c.spans {
					if _, err := f.WriteAt(content[s.Offset:s.Offset+s.Length], s.Offset); err != nil {
						return nil, err
					}
				}
				return c.spans, c.err
			})
			if !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			seen.Reset()
			if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err != nil {
				t.Fatal(err)
			}
			checkDownload(t, path, content)
			if seen.Bytes() > c.most {
				t.Errorf("%d bytes were fetched, at most %d are needed", seen.Bytes(), c.most)
			}
		})
	}
}

// What Seed brings is not believed: the digest of the whole decides.
func TestSeedOfWrongBytes(t *testing.T) {
	content, l := randomBlob(3 * mib)
	p := at(t, Start(t, Referrers))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	path := filepath.Join(t.TempDir(), "store.squashfs")
	wrong := bytes.Clone(content)
	wrong[mib+7] ^= 1
	seed := func(context.Context, *os.File) ([]registry.Span, error) { return nil, errors.New("not called") }
	err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(_ context.Context, f *os.File) ([]registry.Span, error) {
		_, err := f.WriteAt(wrong, 0)
		return []registry.Span{{Offset: 0, Length: 3 * mib}}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	// A download that has begun is left alone.
	if err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, seed); err != nil {
		t.Error(err)
	}
	wantKind(t, p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}), fault.Network)
	if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	checkDownload(t, path, content)
	if err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, seed); err != nil {
		t.Errorf("of a file that is there: %v", err)
	}
}
