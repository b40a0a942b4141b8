package image

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// Manifest is what a registry says about an image, checked.
type Manifest struct {
	Descriptor ocispec.Descriptor // of the manifest: its digest is the image's identity
	Layer      ocispec.Descriptor // of the squashfs
	Mount      string             // annotation; "" for images of other tools
	Key        string             // content key, likewise
	Created    string             // RFC 3339; "" if absent
	Raw        []byte
}

// Read fetches and checks the manifest d. One that is not an image as clients
// expect it has kind Invalid.
func Read(ctx context.Context, repo *registry.Repository, d ocispec.Descriptor) (Manifest, error) {
	m, raw, err := repo.Manifest(ctx, d)
	if err != nil {
		return Manifest{}, err
	}
	layer, err := meta.ImageLayer(m)
	if err != nil {
		return Manifest{}, fault.New(fault.Invalid, "%s@%s is not a uenv image: %w", repo.Name(), d.Digest, err)
	}
	return Manifest{
		Descriptor: d, Layer: layer, Raw: raw,
		Mount: m.Annotations[meta.AnnotationMount], Key: m.Annotations[meta.AnnotationKey],
		Created: m.Annotations[ocispec.AnnotationCreated],
	}, nil
}

// FetchOptions say how an image is fetched. The zero value adapts itself to the
// connection.
type FetchOptions struct {
	Connections int   // parts fetched at a time; 0 is as many as make it faster
	Limit       int64 // in bytes per second; 0 is none
	Events      event.Sink
}

// Fetch downloads the squashfs of m to path, which appears only when the whole
// file is there and has the right digest. What an interruption leaves beside path
// is taken up again by the next call.
func Fetch(ctx context.Context, repo *registry.Repository, m Manifest, path string, o FetchOptions) error {
	o.Events.Start("pull", "%s", repo.Name())
	err := repo.Download(ctx, m.Layer, path, registry.DownloadOptions{
		Connections: o.Connections, Limit: o.Limit, Stage: "pull", Events: o.Events,
	})
	if err != nil {
		return fmt.Errorf("fetch image of %s: %w", repo.Name(), err)
	}
	o.Events.Done("pull", "%d bytes", m.Layer.Size)
	return nil
}

// MetaOf returns the descriptor of the layer that holds an image's meta/. An
// image without metadata has kind NotFound.
func MetaOf(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) (ocispec.Descriptor, error) {
	attached, err := repo.Referrers(ctx, image, meta.TypeMeta)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(attached) == 0 {
		return ocispec.Descriptor{}, fault.New(fault.NotFound, "%s@%s has no %s attached", repo.Name(), image.Digest, meta.TypeMeta)
	}
	m, _, err := repo.Manifest(ctx, attached[0])
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(m.Layers) != 1 {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "%s of %s has %d layers, not one", meta.TypeMeta, repo.Name(), len(m.Layers))
	}
	return m.Layers[0], nil
}
