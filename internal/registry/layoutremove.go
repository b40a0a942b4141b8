package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

func (l *layout) remove(ctx context.Context, d ocispec.Descriptor) error {
	return l.locked(ctx, func(root *os.Root, index ocispec.Index) error {
		if !indexHas(index, d.Digest) {
			return fault.New(fault.NotFound, "manifest %s not found", d.Digest)
		}
		orphans, err := l.orphans(root, index, d)
		if err != nil {
			return err
		}
		if err := l.change(root, func(index *ocispec.Index) { dropEntries(index, d.Digest) }); err != nil {
			return err
		}
		for _, blob := range orphans {
			if err := root.Remove(l.blobFile(blob)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// orphans lists the blobs that only manifest d uses, itself included.
func (l *layout) orphans(root *os.Root, index ocispec.Index, d ocispec.Descriptor) ([]digest.Digest, error) {
	used := map[digest.Digest]bool{}
	for _, m := range index.Manifests {
		if m.Digest == d.Digest {
			continue
		}
		references, err := l.references(root, m)
		if err != nil {
			return nil, err
		}
		for _, b := range append(references, m.Digest) {
			used[b] = true
		}
	}
	candidates, err := l.references(root, d)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(append(candidates, d.Digest), func(b digest.Digest) bool { return used[b] }), nil
}

// references lists what a manifest is made of; one that is damaged has nothing.
func (l *layout) references(root *os.Root, d ocispec.Descriptor) ([]digest.Digest, error) {
	data, err := l.smallBlob(root, d)
	if err != nil {
		return nil, err
	}
	blobs, manifests, err := contents(data)
	if err != nil {
		return nil, nil
	}
	var found []digest.Digest
	for _, b := range append(blobs, manifests...) {
		found = append(found, b.Digest)
	}
	return found, nil
}

func (l *layout) dropTag(ctx context.Context, tag string) (bool, error) {
	err := l.untag(ctx, tag)
	if fault.KindOf(err) == fault.NotFound {
		return true, nil
	}
	return err == nil, err
}

func (l *layout) untag(ctx context.Context, tag string) error {
	return l.locked(ctx, func(root *os.Root, index ocispec.Index) error {
		for _, d := range index.Manifests {
			if d.Annotations[ocispec.AnnotationRefName] == tag {
				return l.change(root, func(index *ocispec.Index) { dropTag(index, tag) })
			}
		}
		return fault.New(fault.NotFound, "tag not found")
	})
}

// locked calls do with the present index while no other process changes it.
func (l *layout) locked(ctx context.Context, do func(*os.Root, ocispec.Index) error) error {
	root, _, err := l.read()
	if err != nil {
		return err
	}
	unlock, err := l.lockFile(ctx, root, indexLock)
	if err != nil {
		return err
	}
	defer unlock()
	_, index, err := l.read()
	if err != nil {
		return err
	}
	return do(root, index)
}
