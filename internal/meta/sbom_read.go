package meta

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// Packages reads what software an image holds from the newest list attached to
// it that can be read. It returns nil if there is none, and says what is wrong
// with the newer ones.
func Packages(ctx context.Context, s Source, image ocispec.Descriptor) (packages []Package, problems []string, err error) {
	attached, err := s.Referrers(ctx, image, TypeSBOM)
	if err != nil {
		return nil, nil, fmt.Errorf("look for %s: %w", TypeSBOM, err)
	}
	slices.SortFunc(attached, func(a, b ocispec.Descriptor) int {
		return cmp.Or(annotatedTime(b).Compare(annotatedTime(a)), cmp.Compare(a.Digest, b.Digest))
	})
	for _, d := range attached {
		sbom, err := readSBOM(ctx, s, image, d)
		switch kind := fault.KindOf(err); {
		case err == nil:
			return sbom.List(), problems, nil
		case kind == fault.Invalid || kind == fault.NotFound:
			problems = append(problems, fmt.Sprintf("%s %s: %v", TypeSBOM, d.Digest, err))
		default:
			return nil, nil, fmt.Errorf("read %s %s: %w", TypeSBOM, d.Digest, err)
		}
	}
	return nil, problems, nil
}

// readSBOM reads one list; other tools give their layers other titles.
func readSBOM(ctx context.Context, s Source, image, d ocispec.Descriptor) (SBOM, error) {
	layer, err := onlyLayer(ctx, s, image, d)
	if err != nil {
		return SBOM{}, err
	}
	data, err := s.LayerFile(ctx, layer, layer.Annotations[ocispec.AnnotationTitle])
	if err != nil {
		return SBOM{}, err
	}
	return ParseSBOM(data)
}
