package meta

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// Source reads what is attached to images; a registry's repository is one.
type Source interface {
	// Referrers lists what refers to a manifest, with artifact types and annotations.
	Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error)
	Manifest(ctx context.Context, d ocispec.Descriptor) (ocispec.Manifest, []byte, error)
	// LayerFile returns a file of a layer: by its path in a directory, by its title
	// if the layer is that file.
	LayerFile(ctx context.Context, layer ocispec.Descriptor, name string) ([]byte, error)
}

// Result is a test result attached to an image.
type Result struct {
	Descriptor ocispec.Descriptor // of the attached manifest
	Layer      ocispec.Descriptor // with the result
	// Verdict is nil if there is none that can be believed; Problem then says why.
	// Such a result counts as untested.
	Verdict *Verdict
	Problem string
	When    time.Time // of the verdict, else as annotated; zero if unknown
	System  string    // of the verdict, else as annotated; "" if unknown
	JUnit   bool      // only a JUnit file, as CI attached it before there were verdicts
}

// Results reads the test results of an image, newest first. Those that cannot be
// used are among them, with the reason: only a failing registry is an error.
func Results(ctx context.Context, s Source, image ocispec.Descriptor) ([]Result, error) {
	attached, err := s.Referrers(ctx, image, TypeReframe)
	if err != nil {
		return nil, fmt.Errorf("look for test results: %w", err)
	}
	results := make([]Result, len(attached))
	for i, d := range attached {
		if results[i], err = readResult(ctx, s, image, d); err != nil {
			return nil, fmt.Errorf("read test results: %w", err)
		}
	}
	slices.SortFunc(results, func(a, b Result) int {
		return cmp.Or(b.When.Compare(a.When), cmp.Compare(a.Descriptor.Digest, b.Descriptor.Digest))
	})
	return results, nil
}

func readResult(ctx context.Context, s Source, image, d ocispec.Descriptor) (Result, error) {
	r := Result{Descriptor: d, System: d.Annotations[AnnotationSystem], When: annotatedTime(d)}
	layer, err := onlyLayer(ctx, s, image, d)
	if err != nil {
		return r.unusable(err)
	}
	r.Layer = layer
	if layer.Annotations[annotationUnpack] != "true" {
		r.JUnit, r.Problem = true, "only a JUnit report is attached: it tells neither what was skipped nor on which system the tests ran"
		return r, nil
	}
	data, err := s.LayerFile(ctx, layer, VerdictFile)
	if err != nil {
		return r.unusable(err)
	}
	v, err := ParseVerdict(data)
	if err != nil {
		return r.unusable(err)
	}
	if v.Image.Digest != image.Digest {
		return r.unusable(invalid("its verdict is about the image %s", cmp.Or(string(v.Image.Digest), "(not named)")))
	}
	r.Verdict, r.When, r.System = &v, v.When.Time, v.System
	return r, nil
}

// unusable takes a bad or vanished result as a problem, any other error as one.
func (r Result) unusable(err error) (Result, error) {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.NotFound:
		r.Problem = err.Error()
		return r, nil
	}
	return r, err
}

// annotationUnpack tells directory layers from files, as oras writes it.
const annotationUnpack = "io.deis.oras.content.unpack"

// onlyLayer returns the one layer of something attached to an image.
func onlyLayer(ctx context.Context, s Source, image, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	m, _, err := s.Manifest(ctx, d)
	switch {
	case err != nil:
		return ocispec.Descriptor{}, err
	case m.Subject == nil || m.Subject.Digest != image.Digest:
		return ocispec.Descriptor{}, invalid("%s is not attached to %s", d.Digest, image.Digest)
	case len(m.Layers) != 1:
		return ocispec.Descriptor{}, invalid("%s has %d layers, not one", d.Digest, len(m.Layers))
	}
	return m.Layers[0], nil
}

// annotatedTime returns when a record was made as far as annotations tell.
func annotatedTime(d ocispec.Descriptor) time.Time {
	for _, key := range []string{AnnotationWhen, ocispec.AnnotationCreated} {
		if t, err := ParseTime(d.Annotations[key]); err == nil {
			return t
		}
	}
	return time.Time{}
}

// Newest is when the newest of some manifests was made, as far as their annotations
// tell; the zero time if they do not.
func Newest(all []ocispec.Descriptor) time.Time {
	var at time.Time
	for _, d := range all {
		for _, name := range []string{ocispec.AnnotationCreated, AnnotationWhen} {
			if t, err := time.Parse(time.RFC3339, d.Annotations[name]); err == nil && t.After(at) {
				at = t
			}
		}
	}
	return at.UTC()
}

// Deprecations reads the deprecation records of an image, newest first, and says
// what is wrong with those that it cannot read.
func Deprecations(ctx context.Context, s Source, image ocispec.Descriptor) (found []Deprecation, problems []string, err error) {
	return records(ctx, s, image, recordType[Deprecation]{
		TypeDeprecation, DeprecationTitle, ParseDeprecation, func(d Deprecation) (digest.Digest, Time) { return d.Image, d.When },
	})
}

// Promotions reads the promotion records of an image, newest first, and says what
// is wrong with those that it cannot read.
func Promotions(ctx context.Context, s Source, image ocispec.Descriptor) (found []Promotion, problems []string, err error) {
	return records(ctx, s, image, recordType[Promotion]{
		TypePromotion, PromotionTitle, ParsePromotion, func(p Promotion) (digest.Digest, Time) { return p.Image, p.When },
	})
}

// recordType says how one type of records is found and read.
type recordType[T any] struct {
	artifactType, title string
	parse               func([]byte) (T, error)
	about               func(T) (digest.Digest, Time)
}

// records reads all documents of one type attached to an image: newest first,
// those of the same time by the digest of their manifests.
func records[T any](ctx context.Context, s Source, image ocispec.Descriptor, r recordType[T]) ([]T, []string, error) {
	attached, err := s.Referrers(ctx, image, r.artifactType)
	if err != nil {
		return nil, nil, fmt.Errorf("look for %s: %w", r.artifactType, err)
	}
	slices.SortFunc(attached, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	var found []T
	var problems []string
	for _, d := range attached {
		document, err := r.read(ctx, s, image, d)
		switch kind := fault.KindOf(err); {
		case err == nil:
			found = append(found, document)
		case kind == fault.Invalid || kind == fault.NotFound:
			problems = append(problems, fmt.Sprintf("%s %s: %v", r.artifactType, d.Digest, err))
		default:
			return nil, nil, fmt.Errorf("read %s %s: %w", r.artifactType, d.Digest, err)
		}
	}
	slices.SortStableFunc(found, func(a, b T) int {
		_, x := r.about(a)
		_, y := r.about(b)
		return y.Compare(x.Time)
	})
	return found, problems, nil
}

func (r recordType[T]) read(ctx context.Context, s Source, image, d ocispec.Descriptor) (T, error) {
	var none T
	layer, err := onlyLayer(ctx, s, image, d)
	if err != nil {
		return none, err
	}
	data, err := s.LayerFile(ctx, layer, r.title)
	if err != nil {
		return none, err
	}
	document, err := r.parse(data)
	if err != nil {
		return none, err
	}
	if about, _ := r.about(document); about != image.Digest {
		return none, invalid("it is about the image %s", about)
	}
	return document, nil
}
