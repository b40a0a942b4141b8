package registry_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
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
		"in pieces":            {spans: []registry.Span{{Offset: 0, Length: 100}, {Offset: 100, Length: 2 * mib}, {Offset: 2*mib + 100, Length: 4 * mib}}, most: 0},
		"a gap":                {spans: []registry.Span{{Offset: 0, Length: 2*mib + 5}, {Offset: 3*mib - 5, Length: 3*mib + 105}}, most: mib},
		"the end":              {spans: []registry.Span{{Offset: 5*mib + 1, Length: mib + 99}}, most: 6 * mib},
		"less than a chunk":    {spans: []registry.Span{{Offset: 10, Length: mib}}, most: all},
		"nothing":              {most: all},
		"an error half-way":    {spans: []registry.Span{{Offset: 0, Length: 4 * mib}}, err: errSeed, most: 2*mib + 100},
		"chunks one after one": {spans: []registry.Span{{Offset: mib, Length: mib}, {Offset: 2 * mib, Length: mib}, {Offset: 4 * mib, Length: mib}}, most: 3*mib + 100},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.squashfs")
			err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(_ context.Context, f *registry.Filling) error {
				for _, s := range c.spans {
					_, err := f.File().WriteAt(content[s.Offset:s.Offset+s.Length], s.Offset)
					if err := errors.Join(err, f.Wrote(s)); err != nil {
						return err
					}
				}
				return c.err
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
	seed := func(context.Context, *registry.Filling) error { return errors.New("not called") }
	err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(_ context.Context, f *registry.Filling) error {
		_, err := f.File().WriteAt(wrong, 0)
		return errors.Join(err, f.Wrote(registry.Span{Length: 3 * mib}))
	})
	if err != nil {
		t.Fatal(err)
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

// A second attempt finds the chunks that the first one completed, whatever became
// of that, and is given the rest.
func TestSeedGoesOn(t *testing.T) {
	content, l := randomBlob(6*mib + 100)
	var seen Counter
	p := at(t, Start(t, Referrers, seen.Middleware()))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	path := filepath.Join(t.TempDir(), "store.squashfs")
	seed := func(fill func(context.Context, *registry.Filling) error) error {
		return p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, fill)
	}
	whole := registry.Span{Length: 6*mib + 100}
	killed := errors.New("killed")
	err := seed(func(ctx context.Context, f *registry.Filling) error {
		if got := f.Missing(whole); !slices.Equal(got, []registry.Span{whole}) || f.Done() != 0 {
			t.Errorf("at first %v", got)
		}
		_, err := f.File().WriteAt(content[:2*mib+7], 0)
		err = errors.Join(err, f.Wrote(registry.Span{Length: 2*mib + 7}), f.Fetch(ctx, registry.Span{Offset: 4 * mib, Length: mib + 5}))
		return errors.Join(err, killed)
	})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	seen.Reset()
	err = seed(func(ctx context.Context, f *registry.Filling) error {
		got := f.Missing(whole)
		if !slices.Equal(got, []registry.Span{{Offset: 2 * mib, Length: 2 * mib}, {Offset: 5 * mib, Length: mib + 100}}) || f.Done() != 3*mib {
			t.Errorf("then %v, %d", got, f.Done())
		}
		return errors.Join(f.Fetch(ctx, got[0]), f.Fetch(ctx, got[1]))
	})
	if err == nil {
		err = p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{})
	}
	if err != nil || seen.Bytes() != 3*mib+100 {
		t.Errorf("%d bytes, %v", seen.Bytes(), err)
	}
	checkDownload(t, path, content)
}
