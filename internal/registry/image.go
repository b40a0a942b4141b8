package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushImage stores a manifest of the form that container images have, with a
// configuration of its own: for other programs' use of registries, such as Spack's
// build caches. Like Push it sets no tag, and sends nothing twice.
func (p *Repository) PushImage(ctx context.Context, config []byte, layers []Layer, annotations map[string]string) (ocispec.Descriptor, error) {
	about := Layer{
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Open:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(config)), nil },
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: about.Descriptor, Layers: []ocispec.Descriptor{}, Annotations: annotations,
	}
	for _, l := range layers {
		if err := validDescriptor(l.Descriptor); err != nil {
			return ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, l.Descriptor)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("encode manifest: %w", err)
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err = p.whileBlobsVanish(ctx, func() error {
		for _, l := range append(layers[:len(layers):len(layers)], about) {
			if _, err := p.pushBlob(ctx, l); err != nil {
				return err
			}
		}
		_, err := p.store.putManifest(ctx, d, data, "")
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push to %s: %w", p, err)
	}
	return d, nil
}
