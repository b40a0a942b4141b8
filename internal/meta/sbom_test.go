package meta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

var (
	theFile  = digest.FromString("squashfs")
	packages = []Package{
		{Name: "glibc", Version: "2.36", Hash: "aaaa", External: true},
		{Name: "py-my_pkg", Version: "git.main=1.0", Hash: "bbbb"},
		{Name: "zlib", Version: "1.3.1", Hash: "cccc"},
	}
)

func sbomOf(image digest.Digest, packages []Package) SBOM {
	return NewSBOM(SBOMInput{
		Name: "tools", Version: "1.0", Image: image, File: theFile, Created: time.Unix(1767225600, 0), Tool: "uenv-ci 1.2", Packages: packages,
	})
}

func TestSBOMReadsBack(t *testing.T) {
	data, err := sbomOf(imageDigest, packages).Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := sbomOf(imageDigest, packages).Encode()
	if !bytes.Equal(data, again) {
		t.Error("the same image has another list")
	}
	back, err := ParseSBOM(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := back.List(); !slices.Equal(got, packages) {
		t.Errorf("got %+v", got)
	}
}

// The members that SPDX 2.3 asks for, and references that lead somewhere.
func TestSBOMIsSPDX(t *testing.T) {
	data, err := sbomOf(imageDigest, packages).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"spdxVersion": "SPDX-2.3"`, `"dataLicense": "CC0-1.0"`, `"SPDXID": "SPDXRef-DOCUMENT"`, `"created": "2026-01-01T00:00:00Z"`,
		`"Tool: uenv-ci-1.2"`, `"documentNamespace": "https://uenv-ci.dev/spdx/` + digest.Digest(imageDigest).Encoded() + `/uenv-ci-1.2"`,
		`"checksumValue": "` + theFile.Encoded() + `"`, `"SPDXRef-Package-py-my-pkg-bbbb"`, `"referenceLocator": "zlib@1.3.1/cccc"`,
	} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("no %s in %s", want, data)
		}
	}
	var doc struct {
		Packages      []map[string]any
		Relationships []map[string]string
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	elements := map[any]bool{"SPDXRef-DOCUMENT": true}
	for _, p := range doc.Packages {
		elements[p["SPDXID"]] = true
		for _, name := range []string{"downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText"} {
			if p[name] != "NOASSERTION" {
				t.Errorf("%v: %s is %v", p["name"], name, p[name])
			}
		}
	}
	kinds := map[string]string{}
	for _, r := range doc.Relationships {
		if !elements[r["spdxElementId"]] || !elements[r["relatedSpdxElement"]] {
			t.Errorf("a relationship of what is not there: %v", r)
		}
		kinds[r["relatedSpdxElement"]] = r["relationshipType"]
	}
	if len(elements) != 5 || kinds["SPDXRef-Image"] != "DESCRIBES" || kinds["SPDXRef-Package-zlib-cccc"] != "CONTAINS" || kinds["SPDXRef-Package-glibc-aaaa"] != "DEPENDS_ON" {
		t.Errorf("elements %v, relationships %v", elements, kinds)
	}
}

func TestParseSBOMRefusesOthers(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "{}", `{"spdxVersion": "SPDX-3.0", "SPDXID": "SPDXRef-DOCUMENT"}`, `{"bomFormat": "CycloneDX"}`, `{"spdxVersion": "SPDX-2.3"}`} {
		if _, err := ParseSBOM([]byte(text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// attachments is a Source that holds single files.
type attachments struct {
	referrers []ocispec.Descriptor
	manifests map[digest.Digest]ocispec.Manifest
	files     map[digest.Digest][]byte
	err       error // of reading files
}

func (a *attachments) add(image digest.Digest, artifactType, title, created string, content []byte) {
	layer := ocispec.Descriptor{Digest: digest.FromBytes(content), Annotations: map[string]string{ocispec.AnnotationTitle: title}}
	d := ocispec.Descriptor{
		ArtifactType: artifactType, Digest: digest.FromString(created + string(content)),
		Annotations: map[string]string{ocispec.AnnotationCreated: created},
	}
	if a.manifests == nil {
		a.manifests, a.files = map[digest.Digest]ocispec.Manifest{}, map[digest.Digest][]byte{}
	}
	a.referrers = append(a.referrers, d)
	a.manifests[d.Digest] = ocispec.Manifest{Subject: &ocispec.Descriptor{Digest: image}, Layers: []ocispec.Descriptor{layer}}
	a.files[layer.Digest] = content
}

func (a *attachments) Referrers(_ context.Context, _ ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	var list []ocispec.Descriptor
	for _, d := range a.referrers {
		if d.ArtifactType == artifactType {
			list = append(list, d)
		}
	}
	return list, nil
}

func (a *attachments) Manifest(_ context.Context, d ocispec.Descriptor) (ocispec.Manifest, []byte, error) {
	return a.manifests[d.Digest], nil, nil
}

func (a *attachments) LayerFile(_ context.Context, layer ocispec.Descriptor, name string) ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	if name != layer.Annotations[ocispec.AnnotationTitle] {
		return nil, fault.New(fault.NotFound, "no %s", name)
	}
	return a.files[layer.Digest], nil
}

// The newest list that can be read counts, also one of another tool.
func TestPackagesOfAnImage(t *testing.T) {
	image := ocispec.Descriptor{Digest: imageDigest}
	var a attachments
	if got, problems, err := Packages(t.Context(), &a, image); got != nil || problems != nil || err != nil {
		t.Errorf("nothing attached: %v %v %v", got, problems, err)
	}
	ours, err := sbomOf(imageDigest, packages).Encode()
	if err != nil {
		t.Fatal(err)
	}
	a.add(imageDigest, TypeSBOM, SBOMTitle, "2026-01-01T00:00:00Z", ours)
	if got, _, err := Packages(t.Context(), &a, image); err != nil || !slices.Equal(got, packages) {
		t.Errorf("ours: %v, %v", got, err)
	}
	foreign := `{"spdxVersion": "SPDX-2.2", "SPDXID": "SPDXRef-DOCUMENT", "packages": [{"SPDXID": "SPDXRef-1", "name": "bash", "versionInfo": "5"}]}`
	a.add(imageDigest, TypeSBOM, "syft.json", "2026-01-02T00:00:00Z", []byte(foreign))
	a.add(imageDigest, TypeSBOM, "syft.json", "2026-01-03T00:00:00Z", []byte("{"))
	a.add(digest.FromString("another"), TypeSBOM, SBOMTitle, "2026-01-04T00:00:00Z", ours)
	got, problems, err := Packages(t.Context(), &a, image)
	if err != nil || !slices.Equal(got, []Package{{Name: "bash", Version: "5"}}) || len(problems) != 2 {
		t.Errorf("got %v, %v, %v", got, problems, err)
	}
	a.err = errors.New("the registry is down")
	if _, _, err := Packages(t.Context(), &a, image); !errors.Is(err, a.err) {
		t.Errorf("a failing registry: %v", err)
	}
}

func TestProvenancesOfAnImage(t *testing.T) {
	var a attachments
	statement := func(about digest.Digest, day int) {
		p := NewProvenance(BuildType, map[string]string{"uenv-ci": "1"})
		p.MadeImage("build/demo/zen2/tools/1.0", about, theFile)
		p.Predicate.RunDetails.Metadata.StartedOn = At(time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC))
		data, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		a.add(imageDigest, TypeProvenance, ProvenanceTitle, "2026-01-01T00:00:00Z", data)
	}
	statement(imageDigest, 2)
	statement(imageDigest, 3)
	statement(digest.FromString("another"), 4)
	found, problems, err := Provenances(t.Context(), &a, ocispec.Descriptor{Digest: imageDigest})
	if err != nil || len(found) != 2 || len(problems) != 1 {
		t.Fatalf("got %+v, %v, %v", found, problems, err)
	}
	if found[0].Predicate.RunDetails.Metadata.StartedOn.Day() != 3 || found[0].Image() != digest.Digest(imageDigest) || found[0].Subject[1].Digest["sha256"] != theFile.Encoded() {
		t.Errorf("the newest is %+v", found[0])
	}
}
