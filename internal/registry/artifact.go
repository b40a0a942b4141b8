package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// Artifact is what one manifest describes: an image, or something attached to
// one.
type Artifact struct {
	Type        string              // artifact type, such as "application/x-squashfs"
	Subject     *ocispec.Descriptor // the manifest that this is attached to; nil for an image
	Layers      []Layer             // content; an empty list is not allowed
	Annotations map[string]string   // of the manifest; org.opencontainers.image.created should be among them
}

// Layer is a blob of an artifact.
type Layer struct {
	Descriptor ocispec.Descriptor
	// Open returns the content from its beginning. It is called again when an
	// upload has to be repeated.
	Open func() (io.ReadCloser, error)
}

// Manifest returns the manifest's bytes and its descriptor with artifact type
// and annotations. Members and their order are those that the field writes
// today (the oras client): the digest of these bytes is an image's identity.
func (a Artifact) Manifest() ([]byte, ocispec.Descriptor, error) {
	if a.Type == "" || len(a.Layers) == 0 {
		return nil, ocispec.Descriptor{}, fault.New(fault.Failure, "an artifact needs a type and a layer")
	}
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: a.Type,
		Config:       ocispec.DescriptorEmptyJSON,
		Annotations:  a.Annotations,
	}
	if a.Subject != nil {
		subject := plain(*a.Subject)
		m.Subject = &subject
	}
	for _, l := range a.Layers {
		if err := validDescriptor(l.Descriptor); err != nil {
			return nil, ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, l.Descriptor)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, ocispec.Descriptor{}, fmt.Errorf("encode manifest: %w", err)
	}
	return data, ocispec.Descriptor{
		MediaType:    m.MediaType,
		Digest:       digest.FromBytes(data),
		Size:         int64(len(data)),
		ArtifactType: a.Type,
		Annotations:  a.Annotations,
	}, nil
}

// FileLayer returns a layer with the content of a regular file whose digest and
// size are known, as from packing. The upload checks them.
func FileLayer(path, title string, d digest.Digest, size int64) Layer {
	return Layer{
		Descriptor: titled(title, ocispec.MediaTypeImageLayer, d, size),
		Open:       func() (io.ReadCloser, error) { return os.Open(path) },
	}
}

// BytesLayer returns a layer with the given content; an empty media type is the
// one that the field uses for a single file.
func BytesLayer(title, mediaType string, data []byte) Layer {
	if mediaType == "" {
		mediaType = ocispec.MediaTypeImageLayer
	}
	return Layer{
		Descriptor: titled(title, mediaType, digest.FromBytes(data), int64(len(data))),
		Open:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}
}

func titled(title, mediaType string, d digest.Digest, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType:   mediaType,
		Digest:      d,
		Size:        size,
		Annotations: map[string]string{ocispec.AnnotationTitle: title},
	}
}

// EmptyLayer is the empty JSON object: the configuration that every artifact refers
// to, and the content of those that are told by their annotations alone.
func EmptyLayer() Layer {
	d := ocispec.DescriptorEmptyJSON
	return Layer{Descriptor: d, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(d.Data)), nil }}
}
