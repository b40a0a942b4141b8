package meta

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// Types of the provenance document: an in-toto statement with a SLSA predicate.
const (
	StatementType  = "https://in-toto.io/Statement/v1"
	ProvenanceType = "https://slsa.dev/provenance/v1"
	BuilderID      = "https://uenv-ci.dev/uenv-ci"
	BuildType      = "https://uenv-ci.dev/build/v1" // of images

	ProvenanceTitle    = "provenance.json"              // of the layer
	MediaTypeStatement = "application/vnd.in-toto+json" // of the layer
)

// Provenance says from what and how something was made: all that varies between
// makings of the same thing, so that the thing itself need not.
type Provenance struct {
	Type          string              `json:"_type"`
	Subject       []Resource          `json:"subject"`
	PredicateType string              `json:"predicateType"`
	Predicate     ProvenancePredicate `json:"predicate"`
}

// ProvenancePredicate is a SLSA v1 predicate.
type ProvenancePredicate struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition is what was asked for (external parameters), what else had a
// part in it (internal ones) and what it was made from.
type BuildDefinition struct {
	BuildType            string         `json:"buildType"`
	ExternalParameters   map[string]any `json:"externalParameters"`
	InternalParameters   map[string]any `json:"internalParameters,omitempty"`
	ResolvedDependencies []Resource     `json:"resolvedDependencies"`
}

// RunDetails are about the one making.
type RunDetails struct {
	Builder    Builder       `json:"builder"`
	Metadata   BuildMetadata `json:"metadata"`
	Byproducts []Resource    `json:"byproducts,omitempty"`
}

// Builder is the program, with its version.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// BuildMetadata tells when it was, and for which job of CI.
type BuildMetadata struct {
	InvocationID string `json:"invocationId,omitempty"` // such as the URL of the job
	StartedOn    Time   `json:"startedOn"`
	FinishedOn   *Time  `json:"finishedOn,omitempty"` // nil if not known
}

// Resource is an in-toto resource descriptor.
type Resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"` // by algorithm: sha256, gitCommit
	MediaType   string            `json:"mediaType,omitempty"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// NewProvenance returns the frame of a statement about something of a build type.
func NewProvenance(buildType string, versions map[string]string) Provenance {
	return Provenance{
		Type: StatementType, Subject: []Resource{}, PredicateType: ProvenanceType,
		Predicate: ProvenancePredicate{
			BuildDefinition: BuildDefinition{BuildType: buildType, ResolvedDependencies: []Resource{}},
			RunDetails:      RunDetails{Builder: Builder{ID: BuilderID, Version: versions}},
		},
	}
}

// Made adds a file to what the statement is about.
func (p *Provenance) Made(name string, content []byte) {
	sum := sha256.Sum256(content)
	p.Subject = append(p.Subject, Resource{Name: name, Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}})
}

// MadeImage adds an image to what the statement is about: its manifest, which is
// its identity, and its file. The name is that of the repository.
func (p *Provenance) MadeImage(name string, manifest, file digest.Digest) {
	p.Subject = append(p.Subject,
		Resource{Name: name, Digest: map[string]string{"sha256": manifest.Encoded()}, MediaType: ocispec.MediaTypeImageManifest},
		Resource{Name: ImageTitle, Digest: map[string]string{"sha256": file.Encoded()}})
}

// Image returns the digest of the manifest that the statement is about; "" if it
// is not about an image.
func (p Provenance) Image() digest.Digest {
	for _, r := range p.Subject {
		if r.MediaType == ocispec.MediaTypeImageManifest {
			return digest.NewDigestFromEncoded(digest.SHA256, r.Digest["sha256"])
		}
	}
	return ""
}

// DependsOn adds something that was used, with its git commit if it has one.
func (p *Provenance) DependsOn(r Resource, commit string) {
	if commit != "" {
		digests := map[string]string{"gitCommit": commit}
		maps.Copy(digests, r.Digest)
		r.Digest = digests
	}
	d := &p.Predicate.BuildDefinition
	d.ResolvedDependencies = append(d.ResolvedDependencies, r)
}

// Encode returns the document as it is stored.
func (p Provenance) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(p, "", "  ")
	return append(data, '\n'), fault.Wrap(fault.Failure, err, "encode provenance")
}

// ParseProvenance reads a statement of ours; kind Invalid if it is none.
func ParseProvenance(data []byte) (Provenance, error) {
	var p Provenance
	if len(data) > maxVerdict {
		return p, invalid("provenance: larger than %d bytes", maxVerdict)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, invalid("provenance: %w", err)
	}
	if p.Type != StatementType || p.PredicateType != ProvenanceType {
		return p, invalid("provenance: %q with %q is no SLSA provenance", p.Type, p.PredicateType)
	}
	return p, nil
}

// Provenances reads what is attached to an image about how it was made, newest
// first, and says what is wrong with documents that it cannot read. An image that
// was built again with the same result has several.
func Provenances(ctx context.Context, s Source, image ocispec.Descriptor) (found []Provenance, problems []string, err error) {
	return records(ctx, s, image, recordType[Provenance]{
		TypeProvenance, ProvenanceTitle, ParseProvenance,
		func(p Provenance) (digest.Digest, Time) { return p.Image(), p.Predicate.RunDetails.Metadata.StartedOn },
	})
}
