package catalog

import (
	"context"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/meta"
)

// readOrigin reads how an image was made and which packages it holds, if that is
// attached: most images have neither, and no further requests are spent on them.
func (about *About) readOrigin(ctx context.Context, repo source, image ocispec.Descriptor) error {
	attached := func(artifactType string) bool {
		return slices.ContainsFunc(about.Attachments, func(a Attached) bool { return a.Type == artifactType })
	}
	if attached(meta.TypeProvenance) {
		found, problems, err := meta.Provenances(ctx, repo, image)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			about.Provenance = &found[0]
		}
		about.Problems = append(about.Problems, problems...)
	}
	if attached(meta.TypeSBOM) {
		packages, problems, err := meta.Packages(ctx, repo, image)
		if err != nil {
			return err
		}
		about.Packages = packages
		about.Problems = append(about.Problems, problems...)
	}
	return nil
}
