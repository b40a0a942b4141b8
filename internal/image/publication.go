package image

import (
	"context"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// fresh is how new something must be to tell that an image was published now.
const fresh = time.Hour

// publication is attached to an image that is published now, unless the image or what
// is attached to it tells the time already; nil then. Registries do not say when
// something came, an image that can be reproduced says when its recipe changed, and
// nobody must take it for that old.
func publication(image ocispec.Descriptor, attached []ocispec.Descriptor, now time.Time) *registry.Artifact {
	if now.Sub(meta.Newest(append([]ocispec.Descriptor{image}, attached...))) < fresh {
		return nil
	}
	annotations := createdAnnotation(now)
	annotations[meta.AnnotationWhen] = meta.FormatTime(now)
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	return &registry.Artifact{
		Type: meta.TypePublication, Subject: &subject, Annotations: annotations, Layers: []registry.Layer{registry.EmptyLayer()},
	}
}

// AttachPublication tells that an image was published now, if nothing else does and tag
// does not name it already. The annotations of the image have to be in its descriptor.
func AttachPublication(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, tag string, now time.Time) error {
	if there, err := tagged(ctx, repo, image, tag); there || err != nil {
		return err
	}
	attached, err := repo.Referrers(ctx, image, "")
	if err != nil {
		return err
	}
	a := publication(image, attached, now)
	if a == nil {
		return nil
	}
	if _, err = repo.Push(ctx, *a); err != nil {
		return fmt.Errorf("attach %s: %w", a.Type, err)
	}
	return nil
}

// tagged tells whether a tag names the image.
func tagged(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, tag string) (bool, error) {
	d, err := repo.Resolve(ctx, tag)
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	return err == nil && d.Digest == image.Digest, err
}

// Copy copies an image with all that is attached to it to another repository or tag,
// and tells that it came there now, unless tag names it already.
func Copy(ctx context.Context, src *registry.Repository, image ocispec.Descriptor, dst *registry.Repository, tag string, now time.Time) (registry.CopyReport, error) {
	attached, err := src.Referrers(ctx, image, "")
	if err != nil {
		return registry.CopyReport{}, err
	}
	o := registry.CopyOptions{Tag: tag, Listed: append([]ocispec.Descriptor{}, attached...)}
	there, err := tagged(ctx, dst, image, tag)
	if err != nil {
		return registry.CopyReport{}, err
	}
	if a := publication(image, attached, now); a != nil && !there {
		o.Attach = []registry.Artifact{*a}
	}
	return registry.Copy(ctx, src, image, dst, o)
}
