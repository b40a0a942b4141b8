package registry

import (
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// parallelBlobs bounds the blobs of one artifact that are sent at a time.
const parallelBlobs = 4

// Push stores an artifact: its blobs, the empty configuration and, when all are
// there, the manifest under its digest; no tag. An artifact with a subject is a
// referrer of it afterwards, whether the registry keeps referrers or not. What is
// there already is not sent again, so pushing twice changes nothing.
func (p *Repository) Push(ctx context.Context, a Artifact) (ocispec.Descriptor, error) {
	data, d, err := a.Manifest()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	err = p.whileBlobsVanish(ctx, func() error { return p.pushArtifact(ctx, a, d, data) })
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push %s to %s: %w", a.Type, p, err)
	}
	return d, nil
}

// whileBlobsVanish repeats a push whose manifest was refused for a blob that had
// just been there: somebody deleted it, or is uploading the same one.
func (p *Repository) whileBlobsVanish(ctx context.Context, push func() error) error {
	for attempt := 1; ; attempt++ {
		err := push()
		if err != nil {
			p.blobs.clear()
		}
		if !errors.Is(err, errBlobUnknown) || attempt >= p.registry.retry.attempts() {
			return err
		}
		if err := pause(ctx, backOff(attempt, p.registry.retry)); err != nil {
			return err
		}
	}
}

func (p *Repository) pushArtifact(ctx context.Context, a Artifact, d ocispec.Descriptor, data []byte) error {
	indexed, err := p.putArtifact(ctx, a, d, data)
	if err != nil || indexed || a.Subject == nil {
		return err
	}
	return p.recordReferrers(ctx, *a.Subject, []ocispec.Descriptor{d})
}

// putArtifact stores blobs and manifest, and tells whether the registry lists it
// with its subject.
func (p *Repository) putArtifact(ctx context.Context, a Artifact, d ocispec.Descriptor, data []byte) (indexed bool, err error) {
	if err := p.pushBlobs(ctx, append([]Layer{EmptyLayer()}, a.Layers...)); err != nil {
		return false, err
	}
	indexed, err = p.store.putManifest(ctx, plain(d), data, "")
	if err != nil {
		return false, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return indexed, nil
}

// pushBlobs uploads the blobs that are not there, several at a time.
func (p *Repository) pushBlobs(ctx context.Context, layers []Layer) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelBlobs)
	for _, l := range layers {
		group.Go(func() error {
			_, err := p.pushBlob(ctx, l)
			return err
		})
	}
	return group.Wait()
}

// smallBlob is the size in bytes below which a blob is sent without asking first
// whether it is there: the question costs as much as the answer saves.
const smallBlob = 16 << 10

// pushBlob uploads a blob unless it is there, and tells whether it did.
func (p *Repository) pushBlob(ctx context.Context, l Layer) (sent bool, err error) {
	d := plain(l.Descriptor)
	there := p.blobs.has(d.Digest)
	if !there && (d.Size >= smallBlob || d.Digest == ocispec.DescriptorEmptyJSON.Digest) {
		there, err = p.store.exists(ctx, d)
	}
	if err == nil && !there {
		err = p.store.putBlob(ctx, d, p.counted(l))
	}
	if err != nil {
		return false, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	p.blobs.add(d.Digest)
	return !there, nil
}
