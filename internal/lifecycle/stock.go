package lifecycle

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
)

// requests is how many are under way at once.
const requests = 16

// stock is what the tags of a repository name.
type stock struct {
	repo *registry.Repository
	list registry.TagList

	mu      sync.Mutex
	found   map[digest.Digest]ocispec.Descriptor
	tags    map[digest.Digest][]string // sorted
	members map[digest.Digest]bool     // of indexes that have a tag
}

// takeStock resolves every tag of a repository: deleting a digest takes all its
// tags along, so all must be known.
func takeStock(ctx context.Context, repo *registry.Repository) (*stock, error) {
	list, err := repo.TagList(ctx)
	if err != nil {
		return nil, err
	}
	s := &stock{
		repo: repo, list: list, found: map[digest.Digest]ocispec.Descriptor{}, tags: map[digest.Digest][]string{}, members: map[digest.Digest]bool{},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(requests)
	for _, tag := range list.Tags {
		group.Go(func() error { return s.resolve(ctx, tag) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, tags := range s.tags {
		slices.Sort(tags)
	}
	return s, nil
}

func (s *stock) resolve(ctx context.Context, tag string) error {
	d, err := s.repo.Resolve(ctx, tag)
	if fault.KindOf(err) == fault.NotFound {
		return nil // it vanished
	}
	if err != nil {
		return err
	}
	members, err := s.repo.Members(ctx, d)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found[d.Digest] = d
	s.tags[d.Digest] = append(s.tags[d.Digest], tag)
	for _, m := range members {
		s.members[m.Digest] = true
	}
	return nil
}
