package registry

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LayerFile is ReadLayerFile as a method, for interfaces that read what is
// attached to an image.
func (p *Repository) LayerFile(ctx context.Context, d ocispec.Descriptor, name string) ([]byte, error) {
	return ReadLayerFile(ctx, p, d, name)
}
