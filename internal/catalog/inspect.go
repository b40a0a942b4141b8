package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/reframe"
	"uenv-ci.dev/internal/registry"
)

// Attached is something that refers to an image.
type Attached struct {
	Type    string        `json:"type"`
	Digest  digest.Digest `json:"digest"`
	Created string        `json:"created,omitempty"` // RFC 3339
}

// About is everything that a registry has on an image.
type About struct {
	Digest      digest.Digest     `json:"digest"`
	ID          string            `json:"id"`
	Size        int64             `json:"size"` // of the image, in bytes
	Created     string            `json:"created,omitempty"`
	Mount       string            `json:"mount,omitempty"`
	Key         string            `json:"key,omitempty"`
	Codec       string            `json:"codec,omitempty"`
	Env         *meta.Env         `json:"env,omitempty"`
	Results     []meta.Verdict    `json:"results,omitempty"`     // newest per system
	Deprecation *meta.Deprecation `json:"deprecation,omitempty"` // nil if it is not deprecated
	Promotions  []meta.Promotion  `json:"promotions,omitempty"`  // newest first
	Provenance  *meta.Provenance  `json:"provenance,omitempty"`  // the newest
	Packages    []meta.Package    `json:"packages,omitempty"`    // as the attached list has them
	// JUnit are results as CI attached them before there were verdicts. They tell
	// neither what was skipped nor where the tests ran, so they count as untested.
	JUnit       []JUnit    `json:"junit,omitempty"`
	Attachments []Attached `json:"attachments"`
	Problems    []string   `json:"problems,omitempty"` // what could not be read, and why
}

// JUnit is a JUnit report attached to an image.
type JUnit struct {
	Digest  digest.Digest `json:"digest"` // of the attached manifest
	Created string        `json:"created,omitempty"`
	Cases   int           `json:"cases"`
	Failed  int           `json:"failed"`
}

// Inspect reads an image's manifest and the documents attached to it, without
// downloading the image.
func Inspect(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) (About, error) {
	m, _, err := repo.Manifest(ctx, image)
	if err != nil {
		return About{}, err
	}
	layer, err := meta.ImageLayer(m)
	if err != nil {
		return About{}, fault.New(fault.Invalid, "%s@%s is not a uenv image: %w", repo.Name(), image.Digest, err)
	}
	about := About{
		Digest: image.Digest, ID: label.ID(image.Digest), Size: layer.Size, Created: m.Annotations[ocispec.AnnotationCreated],
		Mount: m.Annotations[meta.AnnotationMount], Key: m.Annotations[meta.AnnotationKey], Codec: m.Annotations[meta.AnnotationCodec],
		Attachments: []Attached{},
	}
	attached, err := repo.Referrers(ctx, image, "")
	if err != nil {
		return About{}, err
	}
	about.list(attached)
	known := &attachedTo{repo, image.Digest, attached}
	for _, read := range []func(context.Context, source, ocispec.Descriptor) error{
		about.readEnv, about.readResults, about.readRecords, about.readOrigin,
	} {
		if err := read(ctx, known, image); err != nil {
			return About{}, err
		}
	}
	return about, nil
}

// source is a repository, or something that knows more about one.
type source interface {
	meta.Source
	Document(ctx context.Context, d ocispec.Descriptor, name string) ([]byte, error)
}

// attachedTo is a repository of which it is known already what is attached to one
// image: each list is two or more requests.
type attachedTo struct {
	*registry.Repository
	subject  digest.Digest
	attached []ocispec.Descriptor
}

// Referrers implements meta.Source.
func (l *attachedTo) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	if subject.Digest != l.subject {
		return l.Repository.Referrers(ctx, subject, artifactType)
	}
	var found []ocispec.Descriptor
	for _, d := range l.attached {
		if artifactType == "" || d.ArtifactType == artifactType {
			found = append(found, d)
		}
	}
	return found, nil
}

func (about *About) list(attached []ocispec.Descriptor) {
	for _, a := range attached {
		about.Attachments = append(about.Attachments, Attached{a.ArtifactType, a.Digest, a.Annotations[ocispec.AnnotationCreated]})
	}
	slices.SortStableFunc(about.Attachments, func(a, b Attached) int { return cmp.Compare(a.Type, b.Type) })
}

// readEnv reads env.json of the first uenv/meta, as clients do.
func (about *About) readEnv(ctx context.Context, repo source, image ocispec.Descriptor) error {
	attached, err := repo.Referrers(ctx, image, meta.TypeMeta)
	if err != nil {
		return err
	}
	if len(attached) == 0 {
		about.Problems = append(about.Problems, "no "+meta.TypeMeta+" is attached")
		return nil
	}
	if n := len(attached); n > 1 {
		about.Problems = append(about.Problems, fmt.Sprintf("%d %s are attached, of which clients take the first that they are told of", n, meta.TypeMeta))
	}
	data, err := repo.Document(ctx, attached[0], meta.EnvFile)
	if err != nil {
		return about.tolerate(err)
	}
	env, err := meta.ParseEnv(data)
	if err != nil {
		return about.tolerate(err)
	}
	about.Env, about.Mount = &env, cmp.Or(about.Mount, env.Mount)
	return nil
}

func (about *About) readResults(ctx context.Context, repo source, image ocispec.Descriptor) error {
	results, err := meta.Results(ctx, repo, image)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, r := range results {
		switch {
		case r.JUnit:
			if err := about.readJUnit(ctx, repo, r); err != nil {
				return err
			}
		case r.Verdict == nil:
			about.Problems = append(about.Problems, meta.TypeReframe+": "+r.Problem)
		case !seen[r.System]:
			seen[r.System] = true
			about.Results = append(about.Results, decided(*r.Verdict))
		}
	}
	return nil
}

// decided says what the cases of a verdict mean now, whatever the document claims.
func decided(v meta.Verdict) meta.Verdict {
	d := v.Decide(time.Now())
	v.State, v.Reason, v.Counts = d.State, d.Reason, d.Counts
	return v
}

func (about *About) readJUnit(ctx context.Context, repo source, r meta.Result) error {
	data, err := repo.LayerFile(ctx, r.Layer, r.Layer.Annotations[ocispec.AnnotationTitle])
	if err != nil {
		return about.tolerate(err)
	}
	report, err := reframe.ParseJUnit(data)
	if err != nil {
		return about.tolerate(err)
	}
	about.Problems = append(about.Problems, fmt.Sprintf("%s: a JUnit report of %d cases, %d failed, counts as untested", meta.TypeReframe, len(report.Cases), report.Failed()))
	about.JUnit = append(about.JUnit, JUnit{r.Descriptor.Digest, r.Descriptor.Annotations[ocispec.AnnotationCreated], len(report.Cases), report.Failed()})
	return nil
}

func (about *About) readRecords(ctx context.Context, repo source, image ocispec.Descriptor) error {
	promotions, problems, err := meta.Promotions(ctx, repo, image)
	if err != nil {
		return err
	}
	deprecations, more, err := meta.Deprecations(ctx, repo, image)
	if err != nil {
		return err
	}
	about.Promotions = promotions
	about.Problems = append(append(about.Problems, problems...), more...)
	if len(deprecations) > 0 && deprecations[0].State == meta.Active {
		about.Deprecation = &deprecations[0]
	}
	return nil
}

// tolerate notes a bad document; a failing registry stays an error.
func (about *About) tolerate(err error) error {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.NotFound:
		about.Problems = append(about.Problems, err.Error())
		return nil
	}
	return err
}
