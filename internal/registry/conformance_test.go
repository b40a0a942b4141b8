package registry_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

// backend is one registry that the suite runs against.
type backend struct {
	address string
	options registry.Options
	mounts  bool // copies within it move no bytes
	catalog bool // lists its repositories
	noEmpty bool // does not take empty blobs
	shares  bool // may have blobs that another repository has, unasked
}

// quickly makes retries of tests short.
var quickly = registry.RetryOptions{Attempts: 4, Wait: time.Millisecond, MaxWait: 10 * time.Millisecond}

// backends starts each kind of registry that is at hand, in a subtest of its own.
func backends(t *testing.T, test func(*testing.T, backend)) {
	t.Run("layout", func(t *testing.T) {
		test(t, backend{address: "oci:" + t.TempDir(), mounts: true, catalog: true})
	})
	for kind, b := range map[registrytest.Kind]backend{
		registrytest.Referrers:    {mounts: true, catalog: true},
		registrytest.Fallback:     {catalog: true, noEmpty: true},
		registrytest.HalfBroken:   {catalog: true, noEmpty: true},
		registrytest.Docker:       {mounts: true, catalog: true},
		registrytest.Distribution: {mounts: true, catalog: true},
	} {
		t.Run(string(kind), func(t *testing.T) {
			b.address = registrytest.Start(t, kind)
			test(t, b)
		})
	}
	login := registry.Credentials{Getenv: environment("UENV_CI_REGISTRY_USERNAME", username, "UENV_CI_REGISTRY_PASSWORD", password)}
	t.Run("tls and basic", func(t *testing.T) {
		address, ca := registrytest.ServeTLS(t, registrytest.Handler(registrytest.Referrers), registrytest.Basic(username, password))
		test(t, backend{address: address, mounts: true, catalog: true, options: registry.Options{CAFile: ca, Credentials: login}})
	})
	t.Run("tokens", func(t *testing.T) {
		tokens := &registrytest.Tokens{Username: username, Password: password}
		address := registrytest.Start(t, registrytest.Fallback, tokens.Middleware())
		test(t, backend{address: address, noEmpty: true, options: registry.Options{Credentials: login}})
	})
	t.Run("given", func(t *testing.T) {
		address := os.Getenv("UENV_CI_TEST_REGISTRY")
		if address == "" {
			t.Skip("UENV_CI_TEST_REGISTRY is not set")
		}
		test(t, backend{address: fmt.Sprintf("%s/test-%x", address, rand.Uint64()), shares: true, options: registry.Options{CAFile: os.Getenv("UENV_CI_TEST_REGISTRY_CA")}})
	})
}

func (b backend) open(t *testing.T) *registry.Registry {
	t.Helper()
	o := b.options
	o.Retry = quickly
	r, err := registry.Open(b.address, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b backend) repository(t *testing.T, path string) *registry.Repository {
	t.Helper()
	return repository(t, b.open(t), path)
}

func repository(t *testing.T, r *registry.Registry, path string) *registry.Repository {
	t.Helper()
	p, err := r.Repository(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// artifact makes a small artifact whose content is its title and text.
func artifact(kind, text string, subject *ocispec.Descriptor) registry.Artifact {
	return registry.Artifact{
		Type:        kind,
		Subject:     subject,
		Layers:      []registry.Layer{registry.BytesLayer("file", "", []byte(text))},
		Annotations: map[string]string{ocispec.AnnotationCreated: "2026-11-21T09:06:02Z", "dev.uenv-ci.text": text},
	}
}

const image, meta, result = "application/x-squashfs", "uenv/meta", "uenv/reframe"

func push(t *testing.T, p *registry.Repository, a registry.Artifact) ocispec.Descriptor {
	t.Helper()
	d, err := p.Push(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func readAll(t *testing.T, p *registry.Repository, d ocispec.Descriptor) []byte {
	t.Helper()
	rc, err := p.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func wantKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Errorf("error %v has kind %d, want %d", err, fault.KindOf(err), kind)
	}
}

func digests(list []ocispec.Descriptor) []string {
	var all []string
	for _, d := range list {
		all = append(all, d.Digest.String())
	}
	slices.Sort(all)
	return all
}

func TestPushAndFetch(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, "build/eiger/zen2/hello/1.0")
		a := artifact(image, "hello", nil)
		d := push(t, p, a)
		if again := push(t, p, a); again.Digest != d.Digest {
			t.Errorf("pushed again it is %s, not %s", again.Digest, d.Digest)
		}
		want, _, _ := a.Manifest()
		m, data, err := p.Manifest(t.Context(), d)
		if err != nil || !bytes.Equal(data, want) {
			t.Fatalf("manifest %s, want %s: %v", data, want, err)
		}
		if got := readAll(t, p, m.Layers[0]); string(got) != "hello" {
			t.Errorf("layer holds %q", got)
		}
		if got := readAll(t, p, m.Config); string(got) != "{}" {
			t.Errorf("config holds %q", got)
		}
		if got := readAll(t, p, d); !bytes.Equal(got, want) {
			t.Errorf("Fetch of the manifest gives %q", got)
		}
		resolved, err := p.Resolve(t.Context(), d.Digest.String())
		if err != nil || resolved.Digest != d.Digest || resolved.Size != d.Size || resolved.MediaType != d.MediaType {
			t.Errorf("resolved to %+v, %v; want %+v", resolved, err, d)
		}
	})
}

func TestTags(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		ctx, p := t.Context(), b.repository(t, "build/eiger/zen2/hello/1.0")
		one, two := push(t, p, artifact(image, "one", nil)), push(t, p, artifact(image, "two", nil))
		push(t, p, artifact(meta, "attached", &one)) // makes a fallback tag where there is no API
		for _, c := range []struct {
			tag string
			d   ocispec.Descriptor
		}{{"v2", two}, {"v1", one}, {"latest", one}, {"latest", two}} {
			if err := p.Tag(ctx, c.d, c.tag); err != nil {
				t.Fatal(err)
			}
		}
		for tag, want := range map[string]ocispec.Descriptor{"v1": one, "v2": two, "latest": two} {
			if d, err := p.Resolve(ctx, tag); err != nil || d.Digest != want.Digest {
				t.Errorf("%s is %s, want %s: %v", tag, d.Digest, want.Digest, err)
			}
		}
		if tags, err := p.Tags(ctx); err != nil || !slices.Equal(tags, []string{"latest", "v1", "v2"}) {
			t.Errorf("tags %v, %v", tags, err)
		}
		if err := p.Untag(ctx, "latest"); err != nil {
			t.Fatal(err)
		}
		_, err := p.Resolve(ctx, "latest")
		wantKind(t, err, fault.NotFound)
		if d, err := p.Resolve(ctx, "v2"); err != nil || d.Digest != two.Digest {
			t.Errorf("after latest was removed v2 is %s: %v", d.Digest, err)
		}
		wantKind(t, p.Untag(ctx, "no-such"), fault.NotFound)
		wantKind(t, p.Tag(ctx, one, "bad tag"), fault.Usage)
	})
}

func TestWhatIsMissingIsNotFound(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		ctx, r := t.Context(), b.open(t)
		full := repository(t, r, "build/eiger/zen2/hello/1.0")
		there := push(t, full, artifact(image, "hello", nil))
		for _, p := range []*registry.Repository{full, repository(t, r, "build/eiger/zen2/nothing/1.0")} {
			gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 4}
			blob := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("gone"), Size: 4}
			_, err := p.Resolve(ctx, "nothing")
			wantKind(t, err, fault.NotFound)
			_, err = p.Resolve(ctx, gone.Digest.String())
			wantKind(t, err, fault.NotFound)
			_, _, err = p.Manifest(ctx, gone)
			wantKind(t, err, fault.NotFound)
			_, err = p.Fetch(ctx, blob)
			wantKind(t, err, fault.NotFound)
			wantKind(t, p.Tag(ctx, gone, "v1"), fault.NotFound)
			wantKind(t, p.Delete(ctx, gone), fault.NotFound)
			for _, d := range []ocispec.Descriptor{gone, blob} {
				if ok, err := p.Exists(ctx, d); ok || err != nil {
					t.Errorf("Exists says %v, %v", ok, err)
				}
			}
			if refs, err := p.Referrers(ctx, gone, ""); err != nil || len(refs) > 0 {
				t.Errorf("referrers of nothing: %v, %v", refs, err)
			}
		}
		if ok, err := full.Exists(ctx, there); !ok || err != nil {
			t.Errorf("what is there does not exist: %v", err)
		}
	})
}

func TestReferrers(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		ctx, p := t.Context(), b.repository(t, "build/eiger/zen2/hello/1.0")
		d := push(t, p, artifact(image, "hello", nil))
		other := push(t, p, artifact(image, "other", nil))
		old, young := artifact(result, "old", &d), artifact(result, "young", &d)
		young.Annotations[ocispec.AnnotationCreated] = "2026-11-22T00:00:00Z"
		first, second := push(t, p, young), push(t, p, old)
		about := push(t, p, artifact(meta, "about", &d))
		push(t, p, artifact(meta, "about another", &other))
		push(t, p, old) // once more changes nothing

		all, err := p.Referrers(ctx, d, "")
		if err != nil || !slices.Equal(digests(all), digests([]ocispec.Descriptor{first, second, about})) {
			t.Fatalf("all: %v, %v", all, err)
		}
		results, err := p.Referrers(ctx, d, result)
		if err != nil || len(results) != 2 || results[0].Digest != first.Digest || results[1].Digest != second.Digest {
			t.Fatalf("results, newest first: %v, %v", results, err)
		}
		got := results[0]
		if got.ArtifactType != result || got.Annotations["dev.uenv-ci.text"] != "young" || got.Size != first.Size || got.MediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("descriptor %+v is not complete", got)
		}
		if none, err := p.Referrers(ctx, d, "no/such"); err != nil || len(none) > 0 {
			t.Errorf("of another type: %v, %v", none, err)
		}
	})
}

func TestDelete(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		ctx, p := t.Context(), b.repository(t, "build/eiger/zen2/hello/1.0")
		d := push(t, p, artifact(image, "hello", nil))
		keep := push(t, p, artifact(image, "keep", nil))
		one, two := push(t, p, artifact(result, "one", &d)), push(t, p, artifact(result, "two", &d))
		for tag, m := range map[string]ocispec.Descriptor{"v1": d, "keep": keep} {
			if err := p.Tag(ctx, m, tag); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Delete(ctx, one); err != nil {
			t.Fatal(err)
		}
		if refs, err := p.Referrers(ctx, d, ""); err != nil || !slices.Equal(digests(refs), digests([]ocispec.Descriptor{two})) {
			t.Errorf("referrers after one was deleted: %v, %v", refs, err)
		}
		for _, m := range []ocispec.Descriptor{two, d} {
			if err := p.Delete(ctx, m); err != nil {
				t.Fatal(err)
			}
			if ok, err := p.Exists(ctx, m); ok || err != nil {
				t.Errorf("deleted, it exists: %v, %v", ok, err)
			}
		}
		if refs, err := p.Referrers(ctx, d, ""); err != nil || len(refs) > 0 {
			t.Errorf("referrers after all were deleted: %v, %v", refs, err)
		}
		if got, err := p.Resolve(ctx, "keep"); err != nil || got.Digest != keep.Digest {
			t.Errorf("what was to stay is %s, %v", got.Digest, err)
		}
		if got := readAll(t, p, artifact(image, "keep", nil).Layers[0].Descriptor); string(got) != "keep" {
			t.Errorf("its layer holds %q", got)
		}
	})
}

func TestCopyWithinARegistry(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		ctx, r := t.Context(), b.open(t)
		src, dst := repository(t, r, "build/eiger/zen2/hello/1.0"), repository(t, r, "deploy/eiger/zen2/hello/1.0")
		d, all := pushFamily(t, src)
		report, err := registry.Copy(ctx, src, d, dst, registry.CopyOptions{Tag: "v1"})
		if err != nil {
			t.Fatal(err)
		}
		if b.mounts && (report.Uploaded != 0 || report.Bytes != 0 || report.Mounted != 5) {
			t.Errorf("bytes were moved within one registry: %+v", report)
		}
		if report.Manifests != len(all) {
			t.Errorf("%d manifests copied, want %d", report.Manifests, len(all))
		}
		checkFamily(t, dst, d, all)
		if again, err := registry.Copy(ctx, src, d, dst, registry.CopyOptions{Tag: "v1"}); err != nil || again.Bytes != 0 {
			t.Errorf("copied again: %+v, %v", again, err)
		}
		checkFamily(t, dst, d, all)
		if _, err := registry.Copy(ctx, src, d, src, registry.CopyOptions{Tag: "v1"}); err != nil {
			t.Errorf("copy onto itself: %v", err)
		}
	})
}

// pushFamily pushes an image with two referrers, one of which has a referrer.
func pushFamily(t *testing.T, p *registry.Repository) (d ocispec.Descriptor, all []ocispec.Descriptor) {
	t.Helper()
	d = push(t, p, artifact(image, "hello", nil))
	about, results := push(t, p, artifact(meta, "about", &d)), push(t, p, artifact(result, "results", &d))
	signature := push(t, p, artifact("test/signature", "signed", &results))
	return d, []ocispec.Descriptor{d, about, results, signature}
}

func checkFamily(t *testing.T, p *registry.Repository, d ocispec.Descriptor, all []ocispec.Descriptor) {
	t.Helper()
	ctx := t.Context()
	if got, err := p.Resolve(ctx, "v1"); err != nil || got.Digest != d.Digest {
		t.Errorf("tag is %s, want %s: %v", got.Digest, d.Digest, err)
	}
	if tags, err := p.Tags(ctx); err != nil || !slices.Equal(tags, []string{"v1"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	found := []ocispec.Descriptor{d}
	for i := 0; i < len(found); i++ {
		m, _, err := p.Manifest(ctx, found[i])
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, p, m.Layers[0])
		refs, err := p.Referrers(ctx, found[i], "")
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, refs...)
	}
	if !slices.Equal(digests(found), digests(all)) {
		t.Errorf("found %v, want %v", digests(found), digests(all))
	}
}

func TestCopyBetweenRegistries(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		layout := backend{address: "oci:" + t.TempDir()}.repository(t, "hello/1.0")
		far := b.repository(t, "build/eiger/zen2/hello/1.0")
		d, all := pushFamily(t, layout)
		report, err := registry.Copy(t.Context(), layout, d, far, registry.CopyOptions{Tag: "v1"})
		uploads := 5
		if b.shares && report.Uploaded == 4 {
			uploads = 4 // the empty configuration, which everybody has, was there
		}
		if err != nil || report.Uploaded != uploads || report.Mounted != 0 {
			t.Fatalf("%+v, %v", report, err)
		}
		checkFamily(t, far, d, all)
		back := backend{address: "oci:" + t.TempDir()}.repository(t, "hello/1.0")
		if _, err := registry.Copy(t.Context(), far, d, back, registry.CopyOptions{Tag: "v1"}); err != nil {
			t.Fatal(err)
		}
		checkFamily(t, back, d, all)
	})
}

func TestCopyOfChosenReferrers(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		r := b.open(t)
		src, dst := repository(t, r, "build/hello/1.0"), repository(t, r, "deploy/hello/1.0")
		d, all := pushFamily(t, src)
		_, err := registry.Copy(t.Context(), src, d, dst, registry.CopyOptions{Tag: "v1", Referrer: func(d ocispec.Descriptor) bool {
			return d.ArtifactType == meta
		}})
		if err != nil {
			t.Fatal(err)
		}
		checkFamily(t, dst, d, all[:2])
	})
}

func TestRepositories(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		if !b.catalog {
			t.Skip("this registry need not list its repositories")
		}
		r := b.open(t)
		for _, path := range []string{"deploy/eiger/zen2/hello/1.0", "deploy/daint/gh200/hello/1.0", "deployed/x"} {
			push(t, repository(t, r, path), artifact(image, path, nil))
		}
		want := []string{"deploy/daint/gh200/hello/1.0", "deploy/eiger/zen2/hello/1.0"}
		if got, err := r.Repositories(t.Context(), "deploy"); err != nil || !slices.Equal(got, want) {
			t.Errorf("below deploy: %v, %v; want %v", got, err, want)
		}
		if got, err := r.Repositories(t.Context(), ""); err != nil || len(got) != 3 {
			t.Errorf("all: %v, %v", got, err)
		}
	})
}

func TestLargeFile(t *testing.T) {
	content := make([]byte, 17<<20+3) // more than is sent in one piece
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	file := filepath.Join(t.TempDir(), "store.squashfs")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, "build/eiger/zen2/hello/1.0")
		l := registry.FileLayer(file, "store.squashfs", digest.FromBytes(content), int64(len(content)))
		push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
		if !bytes.Equal(readAll(t, p, l.Descriptor), content) {
			t.Error("another content came back")
		}
	})
}

func TestReaderAt(t *testing.T) {
	content, l := randomBlob(3*mib + 1)
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, hello)
		push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
		r := p.ReaderAt(t.Context(), l.Descriptor)
		section := io.NewSectionReader(r, 0, l.Descriptor.Size)
		if err := iotest.TestReader(io.NewSectionReader(r, mib-5, 40), content[mib-5:mib+35]); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(bufio.NewReaderSize(section, mib)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: %v", len(got), err)
		}
		buf := make([]byte, 10)
		if n, err := r.ReadAt(buf, l.Descriptor.Size-4); n != 4 || !errors.Is(err, io.EOF) || !bytes.Equal(buf[:4], content[len(content)-4:]) {
			t.Errorf("at the end: %d bytes, %v", n, err)
		}
		if n, err := r.ReadAt(buf, l.Descriptor.Size); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %d bytes, %v", n, err)
		}
		if n, err := r.ReadAt(buf, -1); n != 0 || err == nil {
			t.Errorf("before the beginning: %d bytes, %v", n, err)
		}
	})
	p := at(t, registrytest.Start(t, registrytest.Referrers, registrytest.Faults(registrytest.Rule{Method: "GET", Path: "blobs", Fault: registrytest.IgnoreRange})))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	_, err := p.ReaderAt(t.Context(), l.Descriptor).ReadAt(make([]byte, 10), 10)
	wantKind(t, err, fault.Refused)
}

func TestWrongContentIsNotPushed(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 17<<20)
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, "build/eiger/zen2/hello/1.0")
		for name, l := range map[string]registry.Layer{
			"small, other bytes": lying("never sent", "never seen"),
			"small, too short":   lying("never whole", "never"),
			"large, other bytes": lying("y"+string(content[1:]), string(content)),
		} {
			_, err := p.Push(t.Context(), registry.Artifact{Type: image, Layers: []registry.Layer{l}})
			if err == nil {
				t.Errorf("%s: it was pushed", name)
			}
			if ok, err := p.Exists(t.Context(), l.Descriptor); ok || err != nil {
				t.Errorf("%s: it exists: %v, %v", name, ok, err)
			}
		}
	})
}

// lying returns a layer that promises one content and gives another.
func lying(promised, given string) registry.Layer {
	l := registry.BytesLayer("file", "", []byte(promised))
	l.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(given)), nil }
	return l
}

// The writers open the registry each for itself, as processes do.
func TestConcurrentAttachesLoseNothing(t *testing.T) {
	const writers = 32
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, "build/eiger/zen2/hello/1.0")
		d := push(t, p, artifact(image, "hello", nil))
		var wg sync.WaitGroup
		want := make([]ocispec.Descriptor, writers)
		errs := make([]error, writers)
		for i := range writers {
			q := b.repository(t, p.Name())
			wg.Go(func() {
				want[i], errs[i] = q.Push(t.Context(), artifact(result, fmt.Sprint(i), &d))
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		got, err := p.Referrers(t.Context(), d, result)
		if err != nil || !slices.Equal(digests(got), digests(want)) {
			t.Errorf("%d of %d attached: %v", len(got), writers, err)
		}
	})
}

func TestConcurrentTagsLoseNothing(t *testing.T) {
	const writers = 8
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, "build/eiger/zen2/hello/1.0")
		var wg sync.WaitGroup
		errs := make([]error, writers)
		for i := range writers {
			q := b.repository(t, p.Name())
			wg.Go(func() {
				d, err := q.Push(t.Context(), artifact(image, fmt.Sprint(i), nil))
				errs[i] = errors.Join(err, q.Tag(t.Context(), d, fmt.Sprint("v", i)))
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if tags, err := p.Tags(t.Context()); err != nil || len(tags) != writers {
			t.Errorf("%d of %d tags: %v, %v", len(tags), writers, tags, err)
		}
	})
}

func TestDirectoryLayerComesBack(t *testing.T) {
	files := fstest.MapFS{
		"env.json":    {Data: []byte(`{"mount":"/user-environment"}`), Mode: 0o600},
		"bin/hook":    {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"latest.json": {Data: []byte("env.json"), Mode: 0o777 | os.ModeSymlink},
	}
	backends(t, func(t *testing.T, b backend) {
		ctx, p := t.Context(), b.repository(t, "build/eiger/zen2/hello/1.0")
		l, err := registry.DirectoryLayer("meta", files, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		push(t, p, registry.Artifact{Type: meta, Layers: []registry.Layer{l}})
		dst := t.TempDir()
		if err := registry.UnpackLayer(ctx, p, l.Descriptor, dst, registry.UnpackLimits{}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"meta/env.json": `{"mount":"/user-environment"}`, "meta/bin/hook": "#!/bin/sh\n"} {
			if got, err := os.ReadFile(filepath.Join(dst, name)); err != nil || string(got) != want {
				t.Errorf("%s holds %q, %v", name, got, err)
			}
			if got, err := p.LayerFile(ctx, l.Descriptor, name); err != nil || string(got) != want {
				t.Errorf("%s reads %q, %v", name, got, err)
			}
		}
		if target, err := os.Readlink(filepath.Join(dst, "meta/latest.json")); err != nil || target != "env.json" {
			t.Errorf("link leads to %q, %v", target, err)
		}
		_, err = p.LayerFile(ctx, l.Descriptor, "meta/none")
		wantKind(t, err, fault.NotFound)
		if err := registry.UnpackLayer(ctx, p, l.Descriptor, dst, registry.UnpackLimits{}); !errors.Is(err, os.ErrExist) {
			t.Errorf("unpacked over what is there: %v", err)
		}
	})
}

func TestCancelStops(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, "build/eiger/zen2/hello/1.0")
		d := push(t, p, artifact(image, "hello", nil))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := p.Push(ctx, artifact(image, "more", nil))
		wantKind(t, err, fault.Interrupted)
		if strings.HasPrefix(b.address, "oci:") {
			return // reading a small file is not interrupted
		}
		_, err = p.Resolve(ctx, d.Digest.String())
		wantKind(t, err, fault.Interrupted)
	})
}
