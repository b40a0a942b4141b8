package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// MaxManifest is the greatest size of a manifest that is read, in bytes; the
// OCI distribution specification asks registries to accept no less.
const MaxManifest = 4 << 20

// Repository is a named set of blobs, manifests and tags of a registry. It is
// safe for concurrent use.
type Repository struct {
	registry *Registry
	name     string
	store    store

	manifests manifestCache // read so far: they cannot change
	blobs     blobSet       // known to be there
}

// Name returns the path of the repository within its registry.
func (p *Repository) Name() string { return p.name }

// String returns the address of the registry and the path, for messages.
func (p *Repository) String() string { return p.registry.String() + "/" + p.name }

// Resolve returns media type, digest and size of the manifest that reference, a
// tag or a digest, stands for. The error has kind NotFound if there is none.
func (p *Repository) Resolve(ctx context.Context, reference string) (ocispec.Descriptor, error) {
	wanted, err := digest.Parse(reference)
	if err != nil {
		wanted = ""
		if err := validTag(reference); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	d, err := p.resolve(ctx, reference, wanted)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %s in %s: %w", reference, p, err)
	}
	return d, nil
}

// resolve fetches the manifest itself: that costs what asking for its digest
// costs, it need not be believed, and callers want the manifest next.
func (p *Repository) resolve(ctx context.Context, reference string, wanted digest.Digest) (ocispec.Descriptor, error) {
	data, mediaType, err := p.store.manifest(ctx, reference)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := descriptorOf(mediaType, data)
	if wanted != "" {
		d.Digest = wanted
		if err := checkContent(data, d); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	p.manifests.put(d.Digest, data)
	return d, nil
}

// Manifest returns the manifest d, parsed and as the bytes whose digest it has.
// One that was read before is remembered, and given even if it was deleted since.
func (p *Repository) Manifest(ctx context.Context, d ocispec.Descriptor) (ocispec.Manifest, []byte, error) {
	data, err := p.rawManifest(ctx, d)
	if err != nil {
		return ocispec.Manifest{}, nil, err
	}
	m, err := parseManifest(data)
	if err != nil {
		return ocispec.Manifest{}, nil, fmt.Errorf("read manifest %s of %s: %w", d.Digest, p, err)
	}
	return m, data, nil
}

// rawManifest returns the verified bytes of a manifest or index.
func (p *Repository) rawManifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	data, err := p.readManifest(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s of %s: %w", d.Digest, p, err)
	}
	return data, nil
}

func (p *Repository) readManifest(ctx context.Context, d ocispec.Descriptor) (data []byte, err error) {
	if err := validDescriptor(d); err != nil {
		return nil, err
	}
	if d.Size > MaxManifest {
		return nil, fault.New(fault.Network, "it has %d bytes, more than the %d that are read", d.Size, MaxManifest)
	}
	data, ok := p.manifests.get(d.Digest)
	if !ok {
		if data, _, err = p.store.manifest(ctx, d.Digest.String()); err != nil {
			return nil, err
		}
	}
	if err := checkContent(data, d); err != nil {
		return nil, err
	}
	p.manifests.put(d.Digest, data)
	return data, nil
}

// parseManifest reads an OCI image manifest. The error has kind Invalid.
func parseManifest(data []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fault.New(fault.Invalid, "not a JSON manifest: %w", err)
	}
	if m.SchemaVersion != 2 || m.MediaType != "" && m.MediaType != ocispec.MediaTypeImageManifest && m.MediaType != mediaTypeDockerManifest {
		return m, fault.New(fault.Invalid, "not an image manifest but schema %d of type %q", m.SchemaVersion, m.MediaType)
	}
	descriptors := append([]ocispec.Descriptor{m.Config}, m.Layers...)
	if m.Subject != nil {
		descriptors = append(descriptors, *m.Subject)
	}
	for _, d := range descriptors {
		if err := validDescriptor(d); err != nil {
			return m, fault.Wrap(fault.Invalid, err, "bad manifest")
		}
	}
	return m, nil
}

// Fetch opens a blob or manifest. Reading it to the end verifies size and
// digest: io.EOF means that all is right, and never are more than d.Size bytes
// returned. A connection that breaks is taken up again where it broke.
func (p *Repository) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if isManifest(d) {
		data, err := p.rawManifest(ctx, d)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	rc, err := p.openBlob(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("fetch blob %s of %s: %w", d.Digest, p, err)
	}
	return rc, nil
}

func (p *Repository) openBlob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := validDescriptor(d); err != nil {
		return nil, err
	}
	r := &resumer{ctx: ctx, store: p.store, d: d, options: p.registry.retry, end: d.Size}
	if err := r.start(); err != nil {
		return nil, err
	}
	return newVerifier(r, d), nil
}

// Exists tells whether the blob or manifest is in the repository.
func (p *Repository) Exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	if err := validDescriptor(d); err != nil {
		return false, err
	}
	ok, err := p.store.exists(ctx, d)
	if err != nil {
		return false, fmt.Errorf("look for %s in %s: %w", d.Digest, p, err)
	}
	return ok, nil
}

// Tag makes tag point to the manifest d, which must be in the repository.
func (p *Repository) Tag(ctx context.Context, d ocispec.Descriptor, tag string) error {
	if err := validTag(tag); err != nil {
		return err
	}
	data, err := p.rawManifest(ctx, d)
	if err != nil {
		return err
	}
	if err := p.setTag(ctx, plain(d), data, tag); err != nil {
		return fmt.Errorf("tag %s of %s: %w", tag, p, err)
	}
	return nil
}

// setTag puts a manifest that is there under a tag. docker-registry does not find
// a blob for the moment in which another writer sends the same one again.
func (p *Repository) setTag(ctx context.Context, d ocispec.Descriptor, data []byte, tag string) error {
	return p.whileBlobsVanish(ctx, func() error {
		_, err := p.store.putManifest(ctx, d, data, tag)
		return err
	})
}

// Untag removes one tag. The manifest stays, other tags of it too.
func (p *Repository) Untag(ctx context.Context, tag string) error {
	if err := validTag(tag); err != nil {
		return err
	}
	if err := p.store.untag(ctx, tag); err != nil {
		return fmt.Errorf("remove tag %s of %s: %w", tag, p, err)
	}
	return nil
}

// Tags lists the tags, sorted. Tags that clients use to record referrers and
// signatures are left out. The error has kind NotFound if the registry says
// that there is no such repository; one without tags may be such.
func (p *Repository) Tags(ctx context.Context) ([]string, error) {
	all, err := p.store.tags(ctx)
	if err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", p, err)
	}
	all = slices.DeleteFunc(all, func(t string) bool { return isServiceTag(t) || !legalTag(t) })
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Delete removes the manifest d with all its tags. Manifests that refer to it
// are not removed: delete them first.
func (p *Repository) Delete(ctx context.Context, d ocispec.Descriptor) error {
	err := p.deleteManifest(ctx, d)
	if err != nil {
		return fmt.Errorf("delete %s of %s: %w", d.Digest, p, err)
	}
	return nil
}

func (p *Repository) deleteManifest(ctx context.Context, d ocispec.Descriptor) error {
	data, err := p.readManifest(ctx, d)
	if err != nil {
		return err
	}
	p.manifests.drop(d.Digest)
	p.blobs.clear()
	if err := p.store.remove(ctx, plain(d)); err != nil {
		return err
	}
	subject := subjectOf(data)
	if subject == nil {
		return nil
	}
	return p.forgetReferrer(ctx, *subject, d)
}

// subjectOf returns the subject of a manifest or index, nil if it has none.
func subjectOf(data []byte) *ocispec.Descriptor {
	var m struct {
		Subject *ocispec.Descriptor `json:"subject"`
	}
	if json.Unmarshal(data, &m) != nil || m.Subject == nil || validDescriptor(*m.Subject) != nil {
		return nil
	}
	return m.Subject
}

// Media types of docker, which registries still serve.
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// isManifest tells manifests from blobs by their media type.
func isManifest(d ocispec.Descriptor) bool {
	switch d.MediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, mediaTypeDockerManifest, mediaTypeDockerList:
		return true
	}
	return false
}

// plain keeps what identifies content: media type, digest and size.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

var errBadDescriptor = errors.New("bad descriptor")

// validDescriptor keeps hostile digests from becoming paths or URLs.
func validDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fault.New(fault.Invalid, "%w: digest %q: %w", errBadDescriptor, d.Digest, err)
	}
	if d.Size < 0 {
		return fault.New(fault.Invalid, "%w: %s has size %d", errBadDescriptor, d.Digest, d.Size)
	}
	return nil
}
