package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// PublishOptions say how an image is published.
type PublishOptions struct {
	Created time.Time // decides the manifest's digest together with the content
	Key     string    // content key; "" for none
	Tags    []string
	// Meta is the directory that becomes uenv/meta for an image that has no
	// meta/ of its own. An image's own meta/ cannot be replaced.
	Meta fs.FS
	// First attaches what tells when the image was published, before anything else is:
	// what is attached to an image without a tag makes it be found by its age.
	First func(context.Context, ocispec.Descriptor) error
	// NoChunks leaves out the index by which others fetch differences: it tells of
	// a restricted image what it shares with others.
	NoChunks bool
	Events   event.Sink
}

// Publish puts an image, its metadata and then its tags into a repository, in
// this order, so that everything is there when the tag appears. Publishing the same
// image again changes nothing. An image without metadata is an error of kind Invalid.
func Publish(ctx context.Context, repo *registry.Repository, file File, o PublishOptions) (ocispec.Descriptor, error) {
	metadata, closeMeta, err := metaOf(file.Path, o.Meta)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer closeMeta()
	o.Events.Start("publish", "%s", repo.Name())
	artifact := artifactOf(file, o)
	chunks, err := describe(ctx, repo, artifact, file, o)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("publish %s: %w", repo.Name(), err)
	}
	defer chunks.end()
	desc, err := repo.Push(ctx, artifact)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("publish %s: %w", repo.Name(), err)
	}
	if o.First != nil {
		if err := o.First(ctx, desc); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("publish %s: %w", repo.Name(), err)
		}
	}
	if err := attachMeta(ctx, repo, desc, metadata, o.Created); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("publish metadata of %s: %w", repo.Name(), err)
	}
	if err := chunks.attach(ctx, repo, desc, o.Created); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("publish chunks of %s: %w", repo.Name(), err)
	}
	for _, tag := range o.Tags {
		if err := repo.Tag(ctx, desc, tag); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("tag %s:%s: %w", repo.Name(), tag, err)
		}
	}
	o.Events.Done("publish", "%s", desc.Digest)
	return desc, nil
}

func artifactOf(file File, o PublishOptions) registry.Artifact {
	annotations := createdAnnotation(o.Created)
	for name, value := range map[string]string{
		meta.AnnotationKey: o.Key, meta.AnnotationCodec: file.Codec, meta.AnnotationMount: file.Mount,
	} {
		if value != "" {
			annotations[name] = value
		}
	}
	return registry.Artifact{
		Type:        meta.TypeImage,
		Layers:      []registry.Layer{registry.FileLayer(file.Path, meta.ImageTitle, file.Digest, file.Size)},
		Annotations: annotations,
	}
}

func createdAnnotation(t time.Time) map[string]string {
	return map[string]string{ocispec.AnnotationCreated: t.UTC().Format(time.RFC3339)}
}

// metaOf returns the directory to attach: the image's own meta/, else given.
func metaOf(path string, given fs.FS) (fs.FS, func(), error) {
	img, err := open(path)
	if err != nil {
		return nil, nil, err
	}
	closeImage := func() { img.Close() }
	_, err = fs.Stat(img, meta.EnvFile)
	switch {
	case err == nil && given != nil:
		closeImage()
		return nil, nil, fault.New(fault.Invalid, "%s has metadata of its own, which cannot be replaced", path)
	case err == nil:
		sub, err := fs.Sub(img, meta.MetaTitle)
		return sub, closeImage, err
	case errors.Is(err, fs.ErrNotExist) && given != nil:
		return given, closeImage, nil
	}
	closeImage()
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.Wrap(fault.Invalid, err, "read image %s", path)
	}
	err = fault.New(fault.Invalid, "%s has no %s, so users could not tell how to use it", path, meta.EnvFile)
	return nil, nil, fault.WithHint(err, "give a directory with an env.json by --meta DIR")
}

// attachMeta attaches the metadata unless the image has some: clients take the
// first that they find, so there must be exactly one.
func attachMeta(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, dir fs.FS, created time.Time) error {
	present, err := repo.Referrers(ctx, image, meta.TypeMeta)
	if err != nil || len(present) > 0 {
		return err
	}
	layer, err := registry.DirectoryLayer(meta.MetaTitle, dir, created)
	if err != nil {
		return err
	}
	_, err = Attach(ctx, repo, image, Attachment{Type: meta.TypeMeta, Layers: []registry.Layer{layer}, Created: created})
	return err
}

// Attachment is something to be attached to an image.
type Attachment struct {
	Type        string
	Layers      []registry.Layer
	Created     time.Time
	Annotations map[string]string
}

// Attach adds a manifest that refers to the image.
func Attach(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, a Attachment) (ocispec.Descriptor, error) {
	annotations := createdAnnotation(a.Created)
	maps.Copy(annotations, a.Annotations)
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	desc, err := repo.Push(ctx, registry.Artifact{Type: a.Type, Subject: &subject, Layers: a.Layers, Annotations: annotations})
	if err != nil {
		return desc, fmt.Errorf("attach %s: %w", a.Type, err)
	}
	return desc, nil
}
