package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
)

// Registries without the referrers API keep the list of what refers to a
// manifest as an image index under a tag made of its digest (OCI distribution
// specification 1.1, "referrers tag schema"). Signing tools add suffixes.
var serviceTag = regexp.MustCompile(`^sha(256|384|512)-([0-9a-f]+)(?:\.[a-z]+)?$`)

func isServiceTag(tag string) bool {
	if !strings.HasPrefix(tag, "sha") {
		return false
	}
	m := serviceTag.FindStringSubmatch(tag)
	return m != nil && len(m[2]) == map[string]int{"256": 64, "384": 96, "512": 128}[m[1]]
}

// fallbackTag is cut at 128 characters, the longest legal tag (sha512).
func fallbackTag(subject digest.Digest) string {
	tag := subject.Algorithm().String() + "-" + subject.Encoded()
	return tag[:min(len(tag), 128)]
}

// Referrers lists the manifests that refer to subject, with their artifact types
// and annotations, newest first by annotation "created", then by digest. Only
// those of artifactType are listed, all if it is empty. What the registry's
// referrers API and the fallback tag say is merged. A subject that does not exist
// has no referrers.
func (p *Repository) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	found, err := p.listReferrers(ctx, subject, nil)
	if err != nil {
		return nil, fmt.Errorf("list referrers of %s in %s: %w", subject.Digest, p, err)
	}
	if artifactType != "" {
		found = slices.DeleteFunc(found, func(d ocispec.Descriptor) bool { return d.ArtifactType != artifactType })
	}
	sortReferrers(found)
	return found, nil
}

// sortReferrers puts the newest first.
func sortReferrers(found []ocispec.Descriptor) {
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int {
		return cmp.Or(
			cmp.Compare(b.Annotations[ocispec.AnnotationCreated], a.Annotations[ocispec.AnnotationCreated]),
			cmp.Compare(a.Digest, b.Digest))
	})
}

// listReferrers merges what there is. Where the repository's tags are known, only
// a fallback tag among them is read.
func (p *Repository) listReferrers(ctx context.Context, subject ocispec.Descriptor, tags map[string]bool) ([]ocispec.Descriptor, error) {
	if err := validDescriptor(subject); err != nil {
		return nil, err
	}
	var known []ocispec.Descriptor
	var index fallback
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		known, err = p.store.referrers(both, subject)
		return err
	})
	if tags == nil || tags[fallbackTag(subject.Digest)] {
		group.Go(func() (err error) {
			index, err = p.readFallback(both, subject)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	// Clients write the fallback themselves and write it well, while half-broken
	// servers give wrong artifact types: it goes first, so that it wins.
	return p.describe(ctx, mergeReferrers(index.manifests, known))
}

// mergeReferrers drops duplicates and what cannot be a referrer.
func mergeReferrers(lists ...[]ocispec.Descriptor) []ocispec.Descriptor {
	var merged []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for _, d := range slices.Concat(lists...) {
		if validDescriptor(d) == nil && isManifest(d) && !seen[d.Digest] {
			seen[d.Digest] = true
			merged = append(merged, d)
		}
	}
	return merged
}

// describe completes descriptors that came without artifact type or annotations
// from their manifests, and drops those whose manifest is gone.
func (p *Repository) describe(ctx context.Context, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	described := list[:0]
	for _, d := range list {
		if d.ArtifactType == "" || d.ArtifactType == ocispec.MediaTypeEmptyJSON || len(d.Annotations) == 0 {
			data, err := p.readManifest(ctx, d)
			if fault.KindOf(err) == fault.NotFound {
				continue
			}
			if err != nil {
				return nil, err
			}
			d = describeManifest(d, data)
		}
		described = append(described, d)
	}
	return described, nil
}

// describeManifest returns d with the artifact type and annotations of its bytes.
func describeManifest(d ocispec.Descriptor, data []byte) ocispec.Descriptor {
	var m struct {
		ArtifactType string             `json:"artifactType"`
		Config       ocispec.Descriptor `json:"config"`
		Annotations  map[string]string  `json:"annotations"`
	}
	d = plain(d)
	if json.Unmarshal(data, &m) == nil {
		d.ArtifactType = cmp.Or(m.ArtifactType, m.Config.MediaType)
		d.Annotations = m.Annotations
	}
	return d
}

// fallback is the content of a fallback tag; the zero value if there is none.
type fallback struct {
	index     ocispec.Descriptor // of the index itself
	manifests []ocispec.Descriptor
}

// readFallback reads the fallback tag of subject. Some registries resolve such a
// tag to the subject itself: whatever is not an image index is no fallback.
func (p *Repository) readFallback(ctx context.Context, subject ocispec.Descriptor) (fallback, error) {
	data, mediaType, err := p.store.manifest(ctx, fallbackTag(subject.Digest))
	if fault.KindOf(err) == fault.NotFound {
		return fallback{}, nil
	}
	if err != nil {
		return fallback{}, err
	}
	var index ocispec.Index
	if mediaType != ocispec.MediaTypeImageIndex || json.Unmarshal(data, &index) != nil || index.SchemaVersion != 2 {
		return fallback{}, nil
	}
	return fallback{descriptorOf(mediaType, data), mergeReferrers(index.Manifests)}, nil
}

func descriptorOf(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// RepairReferrers lists again what refers to subject and was lost from its list,
// as happens where writers on several hosts share a registry without the referrers
// API. Of the candidates those are added that are in the repository and do refer to
// subject; it returns how many were missing.
func (p *Repository) RepairReferrers(ctx context.Context, subject ocispec.Descriptor, candidates []ocispec.Descriptor) (int, error) {
	listed, err := p.Referrers(ctx, subject, "")
	if err != nil {
		return 0, err
	}
	var missing []ocispec.Descriptor
	for _, d := range candidates {
		if slices.ContainsFunc(listed, func(l ocispec.Descriptor) bool { return l.Digest == d.Digest }) {
			continue
		}
		data, err := p.rawManifest(ctx, d)
		if fault.KindOf(err) == fault.NotFound {
			continue
		}
		if err != nil {
			return 0, err
		}
		if subjectDigest(data) == subject.Digest.String() {
			missing = append(missing, describeManifest(d, data))
		}
	}
	if len(missing) == 0 {
		return 0, nil
	}
	return len(missing), p.recordReferrers(ctx, subject, missing)
}

// recordReferrers adds referrers to the fallback tag of their subject.
func (p *Repository) recordReferrers(ctx context.Context, subject ocispec.Descriptor, add []ocispec.Descriptor) error {
	err := p.updateFallback(ctx, subject, func(list []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
		merged := mergeReferrers(list, add)
		return merged, len(merged) > len(list)
	})
	if err != nil {
		return fmt.Errorf("record referrers of %s: %w", subject.Digest, err)
	}
	return nil
}

// forgetReferrer removes a deleted manifest from the fallback tag of its subject.
func (p *Repository) forgetReferrer(ctx context.Context, subject, gone ocispec.Descriptor) error {
	return p.updateFallback(ctx, subject, func(list []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
		kept := slices.DeleteFunc(slices.Clone(list), func(d ocispec.Descriptor) bool { return d.Digest == gone.Digest })
		return kept, len(kept) < len(list)
	})
}

// fallbackAttempts bounds the struggle with writers on other hosts.
const fallbackAttempts = 16

// updateFallback changes the list behind a fallback tag. Registries cannot
// compare and swap: writers of one host exclude each other by a lock; for those
// of other hosts the list is read again after writing until change has nothing
// left to do. Old indexes are deleted only after the new one was seen in place.
func (p *Repository) updateFallback(ctx context.Context, subject ocispec.Descriptor, change func([]ocispec.Descriptor) ([]ocispec.Descriptor, bool)) error {
	unlock, err := p.store.lock(ctx, subject.Digest)
	if err != nil {
		return err
	}
	defer unlock()
	var superseded []ocispec.Descriptor
	removed := false
	for attempt := range fallbackAttempts {
		if attempt > 1 { // the first repetition only confirms
			if err := pause(ctx, backOff(attempt-1, p.registry.retry)); err != nil {
				return err
			}
		}
		current, err := p.readFallback(ctx, subject)
		if err != nil {
			return err
		}
		list, changed := change(current.manifests)
		if !changed {
			p.dropIndexes(ctx, superseded, current.index)
			return nil
		}
		if current.index.Digest != "" {
			superseded = append(superseded, current.index)
		}
		if len(list) == 0 && !removed && p.store.remove(ctx, current.index) == nil {
			removed = true // some servers still serve it: look again
			continue
		}
		if err := p.writeFallback(ctx, subject, list); err != nil {
			return err
		}
	}
	return fault.New(fault.Network, "other writers keep replacing the list; %d attempts", fallbackAttempts)
}

func (p *Repository) writeFallback(ctx context.Context, subject ocispec.Descriptor, list []ocispec.Descriptor) error {
	if list == nil {
		list = []ocispec.Descriptor{} // null upsets some servers
	}
	data, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: list,
	})
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	_, err = p.store.putManifest(ctx, descriptorOf(ocispec.MediaTypeImageIndex, data), data, fallbackTag(subject.Digest))
	return err
}

// dropIndexes deletes indexes that are no longer needed. Many registries refuse, which
// is harmless.
func (p *Repository) dropIndexes(ctx context.Context, superseded []ocispec.Descriptor, current ocispec.Descriptor) {
	for _, d := range superseded {
		if d.Digest != current.Digest {
			_ = p.store.remove(ctx, d)
		}
	}
}
