package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// Doomed is an image that may be deleted, or one name of an image that stays.
type Doomed struct {
	Repository string        `json:"repository"`
	Tags       []string      `json:"tags"` // that go
	Digest     digest.Digest `json:"digest"`
	Bytes      int64         `json:"bytes"`  // of the image, if it goes; 0 if it stays
	Newest     time.Time     `json:"newest"` // of the image and what is attached to it
	Attached   []string      `json:"attached"`
	// Stays are the other tags of the image: with them it stays, and only the tag
	// goes.
	Stays []string `json:"stays,omitempty"`
	Key   string   `json:"key,omitempty"` // its content key

	repo   *registry.Repository
	image  ocispec.Descriptor
	family []digest.Digest // what is attached
	known  []string        // tags that name something else, and are not looked at again
}

// Examine finds out what deleting one tag comes to. An image that was promoted to
// this repository, or that an index lists, has kind Refused: users may have it, and
// what has no tag of its own may be meant all the same.
func Examine(ctx context.Context, repo *registry.Repository, tag string) (Doomed, error) {
	s, err := takeStock(ctx, repo)
	if err != nil {
		return Doomed{}, err
	}
	for d, tags := range s.tags {
		if !slices.Contains(tags, tag) {
			continue
		}
		doomed, reason, err := s.examine(ctx, s.found[d])
		if err != nil {
			return doomed, err
		}
		others := slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return t == tag })
		doomed.known = nil // of one image all may be looked at
		if doomed.Tags = []string{tag}; len(others) > 0 {
			doomed.Stays, doomed.Bytes, doomed.Attached = others, 0, []string{}
		}
		if reason != "" {
			err := fault.New(fault.Refused, "%s:%s %s", repo.Name(), tag, reason)
			return doomed, fault.WithHint(err, "'uenv-ci deprecate' tells users to stop using an image")
		}
		return doomed, nil
	}
	return Doomed{}, fault.New(fault.NotFound, "there is no tag %s in %s", tag, repo)
}

// examine describes an image with all its tags, and says why it must stay; "" if
// it may go.
func (s *stock) examine(ctx context.Context, image ocispec.Descriptor) (Doomed, string, error) {
	d := Doomed{
		Repository: s.repo.Name(), Tags: append([]string{}, s.tags[image.Digest]...), Digest: image.Digest, Attached: []string{},
		repo: s.repo, image: image, known: s.list.Tags,
	}
	m, _, err := s.repo.Manifest(ctx, image)
	if fault.KindOf(err) == fault.Invalid {
		return d, "is not an image", nil
	}
	if err != nil {
		return d, "", err
	}
	d.Key = m.Annotations[meta.AnnotationKey]
	for _, layer := range m.Layers {
		d.Bytes += layer.Size
	}
	family, err := s.repo.Family(ctx, image, s.list)
	if err != nil {
		return d, "", err
	}
	d.Newest = meta.Newest(append([]ocispec.Descriptor{{Annotations: m.Annotations}}, family...))
	for _, r := range family {
		d.Attached, d.family = append(d.Attached, r.ArtifactType), append(d.family, r.Digest)
	}
	switch promoted, err := s.promoted(ctx, image, family); {
	case err != nil:
		return d, "", err
	case promoted:
		return d, "was promoted to here: users may have it", nil
	case s.members[image.Digest]:
		return d, "is listed by an index", nil
	case m.ArtifactType != meta.TypeImage:
		return d, "is not an image", nil
	}
	return d, "", nil
}

// promoted tells whether the image was let through to this repository. A record
// that cannot be read might say so.
func (s *stock) promoted(ctx context.Context, image ocispec.Descriptor, family []ocispec.Descriptor) (bool, error) {
	if s.list.Kept(image.Digest) {
		return true, nil
	}
	if !slices.ContainsFunc(family, func(d ocispec.Descriptor) bool { return d.ArtifactType == meta.TypePromotion }) {
		return false, nil
	}
	records, problems, err := meta.Promotions(ctx, s.repo, image)
	if err != nil || len(problems) > 0 {
		return true, err
	}
	return slices.ContainsFunc(records, func(p meta.Promotion) bool { return p.To.Repository == s.repo.Name() }), nil
}

// unchanged looks whether an image has got a tag, or something has been attached to it,
// since that was listed.
func (d Doomed) unchanged(ctx context.Context) error {
	list, err := d.repo.TagList(ctx)
	if err != nil && fault.KindOf(err) != fault.NotFound { // that was its last
		return err
	}
	if list.Kept(d.Digest) {
		return fault.New(fault.Refused, "%s@%s has been promoted in the meantime: users may have it", d.Repository, d.Digest)
	}
	family, err := d.repo.Family(ctx, d.image, list)
	if err != nil {
		return err
	}
	for _, r := range family {
		if !slices.Contains(d.family, r.Digest) {
			return fault.New(fault.Refused, "%s@%s has had %s attached in the meantime", d.Repository, d.Digest, r.ArtifactType)
		}
	}
	return d.untagged(ctx, list.Tags)
}

// untagged looks whether one of the tags that are not known to name something else
// names the image.
func (d Doomed) untagged(ctx context.Context, tags []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(requests)
	for _, tag := range tags {
		if slices.Contains(d.known, tag) || slices.Contains(d.Tags, tag) {
			continue
		}
		group.Go(func() error {
			switch now, err := d.repo.Resolve(ctx, tag); {
			case fault.KindOf(err) == fault.NotFound:
				return nil
			case err != nil:
				return err
			case now.Digest == d.Digest:
				return fault.New(fault.Refused, "%s@%s has been tagged %s in the meantime", d.Repository, d.Digest, tag)
			}
			return nil
		})
	}
	return group.Wait()
}

// Delete takes away what was examined, unless that has got another tag or attachment
// since, as by a build that found it, or its tag has moved: that is refused. What else
// has to go does so in first, nil for none. It may be done again after it was broken off.
func (d Doomed) Delete(ctx context.Context, first func(context.Context) error) error {
	if len(d.Stays) == 0 {
		err := d.unchanged(ctx)
		if err == nil && first != nil {
			err = first(ctx)
		}
		if err != nil {
			return err
		}
		return d.repo.RemoveFamily(ctx, d.image, d.Tags)
	}
	for _, tag := range d.Tags {
		if now, err := d.repo.Resolve(ctx, tag); err == nil && now.Digest != d.Digest {
			return fault.New(fault.Refused, "%s:%s has become another image in the meantime, %s", d.Repository, tag, now.Digest)
		}
		if err := d.repo.Untag(ctx, tag); err != nil {
			return fmt.Errorf("delete tag %s: %w", tag, err)
		}
	}
	return nil
}
