package registry

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(imageManifest))
	f.Add([]byte(`{"schemaVersion":2,"config":{},"layers":null,"subject":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		subjectOf(data)
		describeManifest(ocispec.Descriptor{}, data)
		if blobs, manifests, err := contents(data); err == nil {
			for _, d := range append(blobs, manifests...) {
				if validDescriptor(d) != nil {
					t.Errorf("contents gives descriptor %+v", d)
				}
			}
		}
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		for _, d := range append(m.Layers, m.Config) {
			if validDescriptor(d) != nil {
				t.Errorf("accepted with descriptor %+v", d)
			}
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:92058f4fbe658e7d0c02bd4bdfea652efe57685e7efa12353f673a74b9307c1e","size":582,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:../../etc/passwd"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		index, err := parseIndex(data)
		if err != nil {
			return
		}
		addEntry(&index, descriptorOf(ocispec.MediaTypeImageManifest, data), data, "new")
		dropTag(&index, "new")
		for _, d := range mergeReferrers(index.Manifests) {
			if d.Digest.Validate() != nil {
				t.Errorf("digest %q came through", d.Digest)
			}
		}
	})
}

// Whatever an archive holds, all that appears is below the title, and no link
// there leads out of it.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, &tar.Header{Typeflag: tar.TypeDir, Name: "meta/"}, &tar.Header{Typeflag: tar.TypeReg, Name: "meta/a"},
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "meta/l", Linkname: "a"}, &tar.Header{Typeflag: tar.TypeLink, Name: "meta/h", Linkname: "meta/a"}))
	f.Add(archive(f, &tar.Header{Typeflag: tar.TypeSymlink, Name: "meta/l", Linkname: "."}, &tar.Header{Typeflag: tar.TypeReg, Name: "meta/l/x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		x := &extractor{root: root, title: "meta"}
		d := ocispec.Descriptor{Annotations: map[string]string{annotationUnpack: "true"}}
		_ = readTar(bytes.NewReader(data), d, UnpackLimits{Bytes: 1 << 20, Entries: 100}, x.add)
		checkInside(t, dir, "meta")
	})
}

func archive(f *testing.F, headers ...*tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

func checkInside(t *testing.T, dir, title string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != title {
		t.Errorf("beside %s: %v, %v", title, entries, err)
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type() != fs.ModeSymlink {
			return err
		}
		target, err := os.Readlink(path)
		rel, relErr := filepath.Rel(filepath.Join(dir, title), filepath.Join(filepath.Dir(path), target))
		if err != nil || filepath.IsAbs(target) || relErr != nil || !filepath.IsLocal(rel) {
			t.Errorf("%s leads to %q", path, target)
		}
		return nil
	})
}
