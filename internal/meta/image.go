package meta

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageLayer returns the squashfs layer of a manifest, or why this is not the
// manifest of an image that clients can use.
func ImageLayer(m ocispec.Manifest) (ocispec.Descriptor, error) {
	switch {
	case m.ArtifactType != TypeImage:
		return ocispec.Descriptor{}, fmt.Errorf("its artifact type is %q, not %q", m.ArtifactType, TypeImage)
	case len(m.Layers) != 1:
		return ocispec.Descriptor{}, fmt.Errorf("it has %d layers, not one", len(m.Layers))
	}
	if title := m.Layers[0].Annotations[ocispec.AnnotationTitle]; title != ImageTitle {
		return ocispec.Descriptor{}, fmt.Errorf("its layer is titled %q, not %q", title, ImageTitle)
	}
	return m.Layers[0], nil
}
