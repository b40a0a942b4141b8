package catalog

import (
	"slices"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// How an image was made and what is in it is shown; a document that cannot be
// read is a problem among others.
func TestInspectShowsProvenanceAndPackages(t *testing.T) {
	layer := registry.BytesLayer(meta.ImageTitle, "", []byte("x"))
	repo, image := push(t, testRegistry(t), "build::x/1:1@daint%gh200", registry.Artifact{Type: meta.TypeImage, Layers: []registry.Layer{layer}})
	for day := range 2 {
		p := meta.NewProvenance(meta.BuildType, map[string]string{"uenv-ci": "1.2"})
		p.MadeImage(repo.Name(), image.Digest, layer.Descriptor.Digest)
		p.Predicate.RunDetails.Metadata.StartedOn = meta.At(time.Date(2026, 1, 1+day, 0, 0, 0, 0, time.UTC))
		data, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		attachJSON(t, repo, image, meta.TypeProvenance, meta.ProvenanceTitle, data, nil)
	}
	packages := []meta.Package{{Name: "glibc", Version: "2.36", Hash: "a", External: true}, {Name: "zlib", Version: "1.3", Hash: "b"}}
	list, err := meta.NewSBOM(meta.SBOMInput{Name: "x", Version: "1", Image: image.Digest, File: layer.Descriptor.Digest, Packages: packages}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	attachJSON(t, repo, image, meta.TypeSBOM, meta.SBOMTitle, list, nil)
	attachJSON(t, repo, image, meta.TypeProvenance, meta.ProvenanceTitle, []byte("{"), nil)
	about, err := Inspect(t.Context(), repo, image)
	if err != nil {
		t.Fatal(err)
	}
	if about.Provenance == nil || about.Provenance.Predicate.RunDetails.Metadata.StartedOn.Day() != 2 || !slices.Equal(about.Packages, packages) {
		t.Errorf("provenance %+v, packages %+v", about.Provenance, about.Packages)
	}
	if !slices.ContainsFunc(about.Problems, func(p string) bool { return strings.HasPrefix(p, meta.TypeProvenance+" sha256:") }) {
		t.Errorf("problems %q", about.Problems)
	}
}
