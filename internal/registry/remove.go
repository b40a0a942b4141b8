package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// KeepTag returns the tag that keeps a promoted digest when its released name
// moves on: some registries drop a manifest with its last tag. Its form is that of
// tags which clients hide from lists of images.
func KeepTag(d digest.Digest) string {
	return strings.Replace(d.String(), ":", "-", 1) + ".keep"
}

// deletionSuffix ends the tag that a deletion under way puts on what goes last.
const deletionSuffix = ".delete"

// Kept tells whether a digest has the tag that KeepTag gives.
func (l TagList) Kept(d digest.Digest) bool { return l.all[KeepTag(d)] }

// Subjects returns the digests that have a fallback tag: manifests that something
// was attached to, on registries that keep no such list themselves; elsewhere those
// whose deletion was broken off. They need not exist any more.
func (l TagList) Subjects() []digest.Digest {
	var found []digest.Digest
	for tag := range l.all {
		name := strings.TrimSuffix(tag, deletionSuffix)
		if d := digest.Digest(strings.Replace(name, "-", ":", 1)); isServiceTag(tag) && d.Validate() == nil {
			found = append(found, d)
		}
	}
	return found
}

// Members returns the manifests that an index lists; nil for anything else.
func (p *Repository) Members(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if d.MediaType != ocispec.MediaTypeImageIndex && d.MediaType != mediaTypeDockerList {
		return nil, nil
	}
	data, err := p.rawManifest(ctx, d)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fault.New(fault.Invalid, "read index %s of %s: %w", d.Digest, p, err)
	}
	return index.Manifests, nil
}

// Family lists what refers to a manifest, and to that, and so on, the nearest
// first. Tags are those of the repository, listed a moment ago.
func (p *Repository) Family(ctx context.Context, d ocispec.Descriptor, tags TagList) ([]ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	seen := map[digest.Digest]bool{d.Digest: true}
	for next := []ocispec.Descriptor{d}; len(next) > 0; next = next[1:] {
		found, err := p.ReferrersListed(ctx, next[0], tags)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			if !seen[r.Digest] && len(all) < maxCopied {
				seen[r.Digest] = true
				all, next = append(all, r), append(next, r)
			}
		}
	}
	return all, nil
}

// RemoveFamily deletes a manifest with those of the given tags that still name it,
// and all that refers to it. Its tags go first, or together with it where a
// registry deletes only by digest, so that nobody meets an image without what is
// attached to it; broken off after that, it leaves what only a hidden tag names, and
// may be done again. That there is nothing left to delete is no error.
func (p *Repository) RemoveFamily(ctx context.Context, d ocispec.Descriptor, tags []string) error {
	if err := validDescriptor(d); err != nil {
		return err
	}
	if err := p.removeFamily(ctx, plain(d), tags); err != nil {
		return fmt.Errorf("delete %s of %s: %w", d.Digest, p, err)
	}
	return nil
}

func (p *Repository) removeFamily(ctx context.Context, d ocispec.Descriptor, tags []string) error {
	unlock, err := p.store.lock(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer unlock()
	list, err := p.TagList(ctx)
	if err != nil {
		return err
	}
	family, err := p.Family(ctx, d, list)
	if err != nil {
		return err
	}
	if family, err = p.own(ctx, d, family); err != nil {
		return err
	}
	p.blobs.clear()
	unmark, err := p.markDeletion(ctx, d, family, list)
	if err != nil {
		return fmt.Errorf("tag what goes last: %w", err)
	}
	for _, tag := range tags {
		if err := p.dropTag(ctx, tag, d.Digest); err != nil {
			return fmt.Errorf("tag %s: %w", tag, err)
		}
	}
	if err := p.removeOne(ctx, d); err != nil {
		return err
	}
	for _, r := range family {
		if err := p.removeOne(ctx, r); err != nil {
			return fmt.Errorf("attached %s: %w", r.Digest, err)
		}
	}
	for _, m := range append(family, d) {
		if list.all[fallbackTag(m.Digest)] {
			if err := p.removeFallback(ctx, m); err != nil {
				return fmt.Errorf("list of what refers to %s: %w", m.Digest, err)
			}
		}
	}
	return unmark()
}

// own leaves of a family, the nearest first, what does refer to d or to one that does.
// Whoever may push can write a list of referrers with anything in it.
func (p *Repository) own(ctx context.Context, d ocispec.Descriptor, family []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	owned := map[string]bool{d.Digest.String(): true}
	var all []ocispec.Descriptor
	for _, r := range family {
		data, err := p.readManifest(ctx, plain(r))
		gone := fault.KindOf(err) == fault.NotFound // by a deletion that was broken off: what refers to it goes too
		if err != nil && !gone {
			return nil, err
		}
		if gone || owned[subjectDigest(data)] {
			owned[r.Digest.String()] = true
			all = append(all, r)
		}
	}
	return all, nil
}

// markDeletion gives what is deleted last a tag that names the image, since what is
// attached to one that is gone is in no list that could be asked for. A fallback tag
// does the same.
func (p *Repository) markDeletion(ctx context.Context, d ocispec.Descriptor, family []ocispec.Descriptor, list TagList) (unmark func() error, err error) {
	tag := strings.Replace(d.Digest.String(), ":", "-", 1) + deletionSuffix
	if len(family) == 0 || list.all[fallbackTag(d.Digest)] || validTag(tag) != nil {
		return func() error { return nil }, nil
	}
	last := family[len(family)-1]
	if err := p.Tag(ctx, last, tag); err != nil {
		return nil, err
	}
	return func() error { // where it did not go with its manifest
		_, _, err := p.store.manifest(ctx, tag)
		if fault.KindOf(err) == fault.NotFound {
			return nil
		}
		return p.dropTag(ctx, tag, last.Digest)
	}, nil
}

func (p *Repository) removeOne(ctx context.Context, d ocispec.Descriptor) error {
	p.manifests.drop(d.Digest)
	err := p.store.remove(ctx, plain(d))
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}

// dropTag removes a tag of a manifest that is about to be deleted, unless it names
// something else by now. Where tags cannot be deleted it goes with the manifest.
func (p *Repository) dropTag(ctx context.Context, tag string, d digest.Digest) error {
	data, _, err := p.store.manifest(ctx, tag)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	if err == nil && d.Algorithm().FromBytes(data) != d {
		return nil
	}
	_, err = p.store.dropTag(ctx, tag) // some list a tag whose manifest is gone
	return err
}

func (p *Repository) removeFallback(ctx context.Context, subject ocispec.Descriptor) error {
	index, err := p.readFallback(ctx, subject)
	if err != nil || index.index.Digest == "" {
		return err
	}
	if err := p.dropTag(ctx, fallbackTag(subject.Digest), index.index.Digest); err != nil {
		return err
	}
	return p.removeOne(ctx, index.index)
}
