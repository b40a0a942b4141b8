package registry

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// store is one repository as its backend knows it. Repository adds to it what
// all backends share: checks of digests and sizes, the order of writes, and
// referrers where the registry does not keep them itself.
type store interface {
	// manifest returns the bytes behind a tag or digest, at most MaxManifest of
	// them, and the media type that the registry gives them. Nothing is verified.
	manifest(ctx context.Context, reference string) (data []byte, mediaType string, err error)
	// blob opens length bytes of a blob from offset on. Where the registry cannot
	// do that, ranged is false and the content is the whole blob.
	blob(ctx context.Context, d ocispec.Descriptor, offset, length int64) (rc io.ReadCloser, ranged bool, err error)
	// exists tells whether a manifest or blob is there.
	exists(ctx context.Context, d ocispec.Descriptor) (bool, error)
	// putBlob uploads a blob that was not there a moment ago. Its bytes are
	// checked against the descriptor; open may be called again after a failure.
	putBlob(ctx context.Context, d ocispec.Descriptor, open opener) error
	// mount makes a blob of another repository of the same registry available
	// here without moving its bytes. It returns false where that is not possible.
	mount(ctx context.Context, d ocispec.Descriptor, from store) (bool, error)
	// putManifest stores a manifest under its digest and, if tag is not empty,
	// that tag. It tells whether the registry keeps the referrers of its subject.
	putManifest(ctx context.Context, d ocispec.Descriptor, data []byte, tag string) (indexed bool, err error)
	// referrers lists what the registry itself knows: nothing where it keeps no
	// such list.
	referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error)
	// tags lists all tags, in any order.
	tags(ctx context.Context) ([]string, error)
	// remove deletes a manifest and every tag of it.
	remove(ctx context.Context, d ocispec.Descriptor) error
	// dropTag deletes one tag and keeps its manifest, where the registry can do
	// that in one request; it tells whether the tag is gone.
	dropTag(ctx context.Context, tag string) (dropped bool, err error)
	// untag deletes one tag and keeps its manifest.
	untag(ctx context.Context, tag string) error
	// lock keeps other processes of this host from changing the referrers of
	// subject, as far as they use this package, until unlock is called.
	lock(ctx context.Context, subject digest.Digest) (unlock func(), err error)
}

// opener returns the content of a blob from its beginning.
type opener func() (io.ReadCloser, error)
