package meta

import (
	"cmp"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
)

// SBOMTitle names the layer of the list of packages that we attach.
const SBOMTitle = "sbom.spdx.json"

// SBOM lists the software of an image: a document of SPDX 2.3, in JSON.
type SBOM struct {
	SPDXVersion   string             `json:"spdxVersion"`
	DataLicense   string             `json:"dataLicense"`
	SPDXID        string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	CreationInfo  SPDXCreation       `json:"creationInfo"`
	Packages      []SPDXPackage      `json:"packages"`
	Relationships []SPDXRelationship `json:"relationships"`
}

// SPDXCreation says when and by what a document was made.
type SPDXCreation struct {
	Created  string   `json:"created"` // RFC 3339, UTC, whole seconds
	Creators []string `json:"creators"`
}

// SPDXPackage is a package, or the image that holds them.
type SPDXPackage struct {
	SPDXID           string            `json:"SPDXID"`
	Name             string            `json:"name"`
	Version          string            `json:"versionInfo,omitempty"`
	DownloadLocation string            `json:"downloadLocation"`
	FilesAnalyzed    bool              `json:"filesAnalyzed"`
	Checksums        []SPDXChecksum    `json:"checksums,omitempty"`
	LicenseConcluded string            `json:"licenseConcluded"`
	LicenseDeclared  string            `json:"licenseDeclared"`
	CopyrightText    string            `json:"copyrightText"`
	ExternalRefs     []SPDXExternalRef `json:"externalRefs,omitempty"`
}

// SPDXChecksum is the digest of a package's file.
type SPDXChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

// SPDXExternalRef says under which name others know a package.
type SPDXExternalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

// SPDXRelationship relates two elements.
type SPDXRelationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

// Names of SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3).
const (
	spdxVersion   = "SPDX-2.3"
	spdxDocument  = "SPDXRef-DOCUMENT"
	spdxImage     = "SPDXRef-Image"
	spdxUnknown   = "NOASSERTION"
	spdxDescribes = "DESCRIBES"
	spdxContains  = "CONTAINS"
	spdxDependsOn = "DEPENDS_ON"
	// spackReference is the type of references to concrete specs: NAME@VERSION/HASH,
	// which every command of Spack understands.
	spackReference = "https://uenv-ci.dev/spdx/spack-spec"
)

// Package is a package of an image, or one of the system that the image needs.
type Package struct {
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Hash     string `json:"hash,omitempty"`     // of Spack's concrete spec
	External bool   `json:"external,omitempty"` // of the system, not in the image
}

// SBOMInput is what a list of packages is made from.
type SBOMInput struct {
	Name, Version string        // of the uenv
	Image         digest.Digest // of the manifest
	File          digest.Digest // of the squashfs
	Created       time.Time     // of the image: the list of one image is always the same
	Tool          string        // name and version of this program
	Packages      []Package
}

// NewSBOM makes the list of packages of an image. Nothing is known of licences.
func NewSBOM(in SBOMInput) SBOM {
	tool := strings.ReplaceAll(in.Tool, " ", "-")
	s := SBOM{
		SPDXVersion: spdxVersion, DataLicense: "CC0-1.0", SPDXID: spdxDocument, Name: in.Name + "-" + in.Version,
		Namespace:     "https://uenv-ci.dev/spdx/" + in.Image.Encoded() + "/" + url.PathEscape(tool),
		CreationInfo:  SPDXCreation{Created: in.Created.UTC().Format(time.RFC3339), Creators: []string{"Tool: " + tool}},
		Relationships: []SPDXRelationship{{spdxDocument, spdxDescribes, spdxImage}},
	}
	image := newSPDXPackage(spdxImage, in.Name, in.Version)
	image.Checksums = []SPDXChecksum{{"SHA256", in.File.Encoded()}}
	image.ExternalRefs = []SPDXExternalRef{{"PACKAGE-MANAGER", "purl", "pkg:oci/" + strings.ToLower(in.Name) + "@" + strings.Replace(in.Image.String(), ":", "%3A", 1)}}
	s.Packages = append(s.Packages, image)
	for _, p := range in.Packages {
		relation := spdxContains
		if p.External {
			relation = spdxDependsOn
		}
		entry := newSPDXPackage(spdxID(p), p.Name, p.Version)
		entry.ExternalRefs = []SPDXExternalRef{{"OTHER", spackReference, p.Name + "@" + p.Version + "/" + p.Hash}}
		s.Packages = append(s.Packages, entry)
		s.Relationships = append(s.Relationships, SPDXRelationship{spdxImage, relation, entry.SPDXID})
	}
	return s
}

func newSPDXPackage(id, name, version string) SPDXPackage {
	return SPDXPackage{
		SPDXID: id, Name: name, Version: version, DownloadLocation: spdxUnknown,
		LicenseConcluded: spdxUnknown, LicenseDeclared: spdxUnknown, CopyrightText: spdxUnknown,
	}
}

// spdxID names a package in the document: letters, digits, dots and dashes.
func spdxID(p Package) string {
	return "SPDXRef-Package-" + strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '.', r == '-':
			return r
		}
		return '-'
	}, p.Name+"-"+cmp.Or(p.Hash, p.Version))
}

// Encode returns the document as it is stored.
func (s SBOM) Encode() ([]byte, error) {
	data, err := encode(s)
	return data, fault.Wrap(fault.Failure, err, "encode SBOM")
}

// ParseSBOM reads a list of packages, ours or another tool's: SPDX 2 in JSON;
// kind Invalid if it is none.
func ParseSBOM(data []byte) (SBOM, error) {
	var s SBOM
	if len(data) > maxVerdict {
		return s, invalid("SBOM: larger than %d bytes", maxVerdict)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, invalid("SBOM: %w", err)
	}
	if !strings.HasPrefix(s.SPDXVersion, "SPDX-2.") || s.SPDXID == "" {
		return s, invalid("SBOM: %q is no document of SPDX 2", s.SPDXVersion)
	}
	return s, nil
}

// List returns the packages, without what the document is about as a whole.
func (s SBOM) List() []Package {
	whole, external := map[string]bool{}, map[string]bool{}
	for _, r := range s.Relationships {
		switch {
		case r.Element == s.SPDXID && r.Type == spdxDescribes:
			whole[r.Related] = true
		case r.Type == spdxDependsOn && r.Element == spdxImage:
			external[r.Related] = true
		}
	}
	list := []Package{}
	for _, p := range s.Packages {
		if whole[p.SPDXID] {
			continue
		}
		list = append(list, Package{Name: p.Name, Version: p.Version, Hash: p.spackHash(), External: external[p.SPDXID]})
	}
	return list
}

func (p SPDXPackage) spackHash() string {
	for _, r := range p.ExternalRefs {
		if r.Type == spackReference {
			return r.Locator[strings.LastIndex(r.Locator, "/")+1:]
		}
	}
	return ""
}
