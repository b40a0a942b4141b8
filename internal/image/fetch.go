package image

import (
	"context"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/atomicfile"
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

// Fetch downloads the squashfs of m to path, which appears only when the whole
// file is there and has the right digest.
func Fetch(ctx context.Context, repo *registry.Repository, m Manifest, path string, events event.Sink) error {
	events.Start("pull", "%s", repo.Name())
	err := atomicfile.Write(path, 0o644, func(w io.Writer) error {
		return copyBlob(ctx, w, repo, m.Layer, events)
	})
	if err != nil {
		return fmt.Errorf("fetch image of %s: %w", repo.Name(), err)
	}
	events.Done("pull", "%d bytes", m.Layer.Size)
	return nil
}

func copyBlob(ctx context.Context, w io.Writer, repo *registry.Repository, d ocispec.Descriptor, events event.Sink) error {
	r, err := repo.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, &progressReader{r: r, events: events, total: d.Size})
	return err
}

// progressReader tells how much has been read.
type progressReader struct {
	r           io.Reader
	events      event.Sink
	done, total int64
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.done += int64(n)
	p.events.Progress("pull", p.done, p.total, "B")
	return n, err
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

// FetchEnv reads the attached meta/env.json without downloading the image.
func FetchEnv(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) (meta.Env, error) {
	layer, err := MetaOf(ctx, repo, image)
	if err != nil {
		return meta.Env{}, err
	}
	data, err := registry.ReadLayerFile(ctx, repo, layer, meta.EnvFile)
	if err != nil {
		return meta.Env{}, err
	}
	env, err := meta.ParseEnv(data)
	return env, fault.Wrap(fault.Invalid, err, "read %s of %s", meta.EnvFile, repo.Name())
}
