package lifecycle

import (
	"cmp"
	"context"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// Retention says which images of a repository may go.
type Retention struct {
	OlderThan time.Duration // since anything was made of or attached to them
	Keep      int           // newest images of each repository that stay however old
	Now       time.Time
}

// Expired lists the images of a repository that may be deleted, oldest first, and
// how many stay. What was promoted, what an index lists, what is no image, and what
// tells no time stays always. On registries that keep referrers under fallback
// tags, images without any tag are found by those.
func Expired(ctx context.Context, repo *registry.Repository, r Retention) (doomed []Doomed, stay int, err error) {
	s, err := takeStock(ctx, repo)
	if err != nil {
		return nil, 0, err
	}
	for _, image := range s.found {
		d, reason, err := s.examine(ctx, image)
		if err != nil {
			return nil, 0, err
		}
		if reason != "" || d.Newest.IsZero() {
			stay++
			continue
		}
		doomed = append(doomed, d)
	}
	slices.SortFunc(doomed, func(a, b Doomed) int {
		return cmp.Or(b.Newest.Compare(a.Newest), cmp.Compare(a.Digest, b.Digest))
	})
	all := len(doomed)
	doomed = doomed[min(all, max(0, r.Keep)):]
	doomed = slices.DeleteFunc(doomed, func(d Doomed) bool { return r.Now.Sub(d.Newest) < r.OlderThan })
	stay += all - len(doomed)
	untagged, err := s.untagged(ctx, r)
	if err != nil {
		return nil, 0, err
	}
	doomed = append(doomed, untagged...)
	slices.Reverse(doomed)
	return doomed, stay, nil
}

// untagged lists what fallback tags tell of that no tag names, and that is old: the
// rest of a deletion that was broken off, or an image whose tag has moved on.
func (s *stock) untagged(ctx context.Context, r Retention) ([]Doomed, error) {
	known := map[string]bool{}
	for _, image := range s.found {
		known[image.Digest.String()] = true
		family, err := s.repo.Family(ctx, image, s.list)
		if err != nil {
			return nil, err
		}
		for _, d := range family {
			known[d.Digest.String()] = true
		}
	}
	var doomed []Doomed
	for _, subject := range s.list.Subjects() {
		if known[subject.String()] || s.list.Kept(subject) || s.members[subject] {
			continue
		}
		var d Doomed
		var reason string
		image, err := s.repo.Resolve(ctx, subject.String())
		if fault.KindOf(err) == fault.NotFound {
			d, err = s.remains(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject})
		} else if err == nil {
			d, reason, err = s.examine(ctx, image)
		}
		if err != nil {
			return nil, err
		}
		if reason == "" && !d.Newest.IsZero() && r.Now.Sub(d.Newest) >= r.OlderThan {
			doomed = append(doomed, d)
		}
	}
	return doomed, nil
}

// remains describes what is attached to an image that is gone.
func (s *stock) remains(ctx context.Context, image ocispec.Descriptor) (Doomed, error) {
	d := Doomed{Repository: s.repo.Name(), Tags: []string{}, Digest: image.Digest, Attached: []string{}, repo: s.repo, image: image, known: s.list.Tags}
	family, err := s.repo.Family(ctx, image, s.list)
	for _, r := range family {
		d.Attached, d.family = append(d.Attached, r.ArtifactType), append(d.family, r.Digest)
	}
	d.Newest = meta.Newest(family)
	return d, err
}
