package registry

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// Document returns one file of the only layer of an artifact, by its full name
// such as "reframe/verdict.json". The error has kind NotFound if the layer has
// no such file, Invalid if the artifact has not exactly one layer.
func (p *Repository) Document(ctx context.Context, artifact ocispec.Descriptor, name string) ([]byte, error) {
	m, _, err := p.Manifest(ctx, artifact)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != 1 {
		return nil, fault.New(fault.Invalid, "%s@%s has %d layers, not one", p.Name(), artifact.Digest, len(m.Layers))
	}
	return p.LayerFile(ctx, m.Layers[0], name)
}
