package registry

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The bytes that oras writes for an image; their digest is the image's identity.
const imageManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x-squashfs","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:5f74adda8ae8a3a4663376d5843040b21b3e8bc013207f3ff9e3de82c8714988","size":4096,"annotations":{"org.opencontainers.image.title":"store.squashfs"}}],"annotations":{"org.opencontainers.image.created":"2026-11-21T09:06:02Z"}}`

func created(at string) map[string]string {
	return map[string]string{ocispec.AnnotationCreated: at}
}

func TestManifestIsByteForByteWhatOrasWrites(t *testing.T) {
	image := Artifact{
		Type:        "application/x-squashfs",
		Layers:      []Layer{FileLayer("ignored", "store.squashfs", "sha256:5f74adda8ae8a3a4663376d5843040b21b3e8bc013207f3ff9e3de82c8714988", 4096)},
		Annotations: created("2026-11-21T09:06:02Z"),
	}
	data, d, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != imageManifest {
		t.Errorf("got\n%s\nwant\n%s", data, imageManifest)
	}
	if d.Digest != "sha256:92058f4fbe658e7d0c02bd4bdfea652efe57685e7efa12353f673a74b9307c1e" || d.Size != 582 {
		t.Errorf("digest %s, %d bytes", d.Digest, d.Size)
	}
	if d.ArtifactType != image.Type || d.Annotations[ocispec.AnnotationCreated] == "" {
		t.Errorf("descriptor %+v lacks type or annotations", d)
	}
}

func TestManifestOfAReferrerNamesItsSubjectPlainly(t *testing.T) {
	subject := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(imageManifest), Size: 582,
		ArtifactType: "application/x-squashfs", Annotations: created("2026-11-21T09:06:02Z"),
	}
	data, _, err := Artifact{Type: "uenv/meta", Subject: &subject, Layers: []Layer{BytesLayer("x", "", nil)}}.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	want := `"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:92058f4fbe658e7d0c02bd4bdfea652efe57685e7efa12353f673a74b9307c1e","size":582}`
	if !strings.Contains(string(data), want) {
		t.Errorf("%s lacks %s", data, want)
	}
}

func TestManifestNeedsTypeAndLayers(t *testing.T) {
	for _, a := range []Artifact{
		{Layers: []Layer{BytesLayer("x", "", nil)}},
		{Type: "uenv/meta"},
		{Type: "uenv/meta", Layers: []Layer{{Descriptor: ocispec.Descriptor{Digest: "sha256:../../x"}}}},
	} {
		if _, _, err := a.Manifest(); err == nil {
			t.Errorf("%+v was packed", a)
		}
	}
}

func TestParseManifest(t *testing.T) {
	if m, err := parseManifest([]byte(imageManifest)); err != nil || len(m.Layers) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	for name, text := range map[string]string{
		"not JSON":    `<html>`,
		"an index":    `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
		"schema 1":    `{"schemaVersion":1}`,
		"bad digest":  strings.Replace(imageManifest, "sha256:5f74", "sha256:../5f", 1),
		"negative":    strings.Replace(imageManifest, `"size":4096`, `"size":-1`, 1),
		"bad subject": strings.Replace(imageManifest, `"layers"`, `"subject":{"digest":"x","size":1},"layers"`, 1),
	} {
		if _, err := parseManifest([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
