package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// Attached is something that refers to an image.
type Attached struct {
	Type    string        `json:"type"`
	Digest  digest.Digest `json:"digest"`
	Created string        `json:"created,omitempty"`
	Note    string        `json:"note,omitempty"` // why it does not count, or could not be read
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
	Attachments []Attached        `json:"attachments"`

	deprecations []meta.Deprecation
}

// Inspect reads an image's manifest and the documents attached to it, without
// downloading the image.
func Inspect(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) (About, error) {
	m, _, err := repo.Manifest(ctx, image)
	if err != nil {
		return About{}, err
	}
	record := Record{}
	record.fill(m)
	if record.Problem != "" {
		return About{}, fault.New(fault.Invalid, "%s@%s: %s", repo.Name(), image.Digest, record.Problem)
	}
	about := About{
		Digest: image.Digest, ID: image.Digest.Encoded()[:16], Size: record.Size, Created: record.Created,
		Mount: record.Mount, Key: m.Annotations[meta.AnnotationKey], Codec: m.Annotations[meta.AnnotationCodec],
	}
	attached, err := repo.Referrers(ctx, image, "")
	if err != nil {
		return About{}, err
	}
	for _, a := range attached {
		if err := about.add(ctx, repo, a); err != nil {
			return About{}, fmt.Errorf("read %s %s: %w", a.ArtifactType, a.Digest, err)
		}
	}
	about.sort()
	about.Deprecation = meta.Holding(about.deprecations)
	return about, nil
}

func (about *About) add(ctx context.Context, repo *registry.Repository, a ocispec.Descriptor) error {
	entry := Attached{Type: a.ArtifactType, Digest: a.Digest, Created: a.Annotations[ocispec.AnnotationCreated]}
	var err error
	switch a.ArtifactType {
	case meta.TypeMeta:
		err = about.addEnv(ctx, repo, a)
	case meta.TypeReframe:
		err = about.addResult(ctx, repo, a)
	case meta.TypePromotion:
		err = about.addPromotion(ctx, repo, a)
	case meta.TypeDeprecation:
		err = about.addDeprecation(ctx, repo, a)
	}
	switch kind := fault.KindOf(err); {
	case errors.Is(err, errNoVerdict):
		entry.Note = errNoVerdict.Error()
	case err != nil && (kind == fault.Network || kind == fault.Unauthorized || kind == fault.Interrupted):
		return err
	case err != nil:
		entry.Note = "cannot be read: " + err.Error()
	}
	about.Attachments = append(about.Attachments, entry)
	return nil
}

// errNoVerdict tells of results as today's pipelines attach them: one JUnit
// file, which does not say what was skipped.
var errNoVerdict = errors.New("has no verdict.json: counts as untested")

func (about *About) addEnv(ctx context.Context, repo *registry.Repository, a ocispec.Descriptor) error {
	data, err := repo.Document(ctx, a, meta.EnvFile)
	if err != nil {
		return err
	}
	env, err := meta.ParseEnv(data)
	if err != nil {
		return err
	}
	if about.Env == nil {
		about.Env = &env
		about.Mount = cmp.Or(about.Mount, env.Mount)
	}
	return nil
}

func (about *About) addResult(ctx context.Context, repo *registry.Repository, a ocispec.Descriptor) error {
	data, err := repo.Document(ctx, a, meta.VerdictFile)
	if fault.KindOf(err) == fault.NotFound {
		return errNoVerdict
	}
	if err != nil {
		return err
	}
	v, err := meta.ParseVerdict(data)
	if err != nil {
		return err
	}
	about.Results = append(about.Results, v)
	return nil
}

func (about *About) addPromotion(ctx context.Context, repo *registry.Repository, a ocispec.Descriptor) error {
	data, err := repo.Document(ctx, a, meta.PromotionTitle)
	if err != nil {
		return err
	}
	p, err := meta.ParsePromotion(data)
	if err == nil {
		about.Promotions = append(about.Promotions, p)
	}
	return err
}

func (about *About) addDeprecation(ctx context.Context, repo *registry.Repository, a ocispec.Descriptor) error {
	data, err := repo.Document(ctx, a, meta.DeprecationTitle)
	if err != nil {
		return err
	}
	d, err := meta.ParseDeprecation(data)
	if err == nil && d.Image == about.Digest {
		about.deprecations = append(about.deprecations, d)
	}
	return err
}

// sort keeps the newest result of each system and orders everything.
func (about *About) sort() {
	slices.SortStableFunc(about.Results, func(a, b meta.Verdict) int {
		return cmp.Or(cmp.Compare(a.System, b.System), b.When.Compare(a.When.Time))
	})
	about.Results = slices.CompactFunc(about.Results, func(a, b meta.Verdict) bool { return a.System == b.System })
	slices.SortStableFunc(about.Promotions, func(a, b meta.Promotion) int { return b.When.Compare(a.When.Time) })
	slices.SortStableFunc(about.Attachments, func(a, b Attached) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Digest.String(), b.Digest.String()))
	})
}
