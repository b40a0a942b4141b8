package promote

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// union reads what is attached to an image in two repositories as if it were in
// one. An image that was promoted before may since have been tested, or
// deprecated, under its released name. Each list is asked for once.
type union struct {
	repos []*registry.Repository
	lists *sync.Map                              // of []ocispec.Descriptor, by repository
	home  map[digest.Digest]*registry.Repository // of manifests and layers that were seen
}

var _ meta.Source = (*union)(nil)

func (r Request) attached() *union {
	u := &union{
		repos: []*registry.Repository{r.Source},
		lists: &sync.Map{}, home: map[digest.Digest]*registry.Repository{},
	}
	if r.Source.String() != r.Target.String() {
		u.repos = append(u.repos, r.Target)
	}
	return u
}

// in returns what is attached in one of the repositories.
func (u *union) in(repo *registry.Repository) *union {
	return &union{[]*registry.Repository{repo}, u.lists, u.home}
}

// Referrers implements meta.Source. The subject is always the image.
func (u *union) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for _, repo := range u.repos {
		list, err := u.list(ctx, repo, subject)
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			if d.ArtifactType == artifactType && !seen[d.Digest] {
				seen[d.Digest] = true
				u.home[d.Digest] = repo
				all = append(all, d)
			}
		}
	}
	return all, nil
}

// list asks a repository once.
func (u *union) list(ctx context.Context, repo *registry.Repository, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if list, known := u.lists.Load(repo); known {
		return list.([]ocispec.Descriptor), nil
	}
	list, err := repo.Referrers(ctx, subject, "")
	if err == nil {
		u.lists.Store(repo, list)
	}
	return list, err
}

// ahead asks all repositories at the same time. Who needs a list that could not be
// had asks again and hears why.
func (u *union) ahead(ctx context.Context, subject ocispec.Descriptor) {
	var asked sync.WaitGroup
	for _, repo := range u.repos {
		asked.Go(func() { _, _ = u.list(ctx, repo, subject) })
	}
	asked.Wait()
}

// readAhead begins to read the manifests that no rule reads, since they are copied
// next. It returns what waits for them; who misses one asks again and hears why.
func (u *union) readAhead(ctx context.Context, repo *registry.Repository, subject ocispec.Descriptor) (wait func()) {
	var reading errgroup.Group
	reading.SetLimit(parallelReads)
	list, _ := u.list(ctx, repo, subject)
	for _, d := range list {
		switch d.ArtifactType {
		case meta.TypeMeta, meta.TypeReframe, meta.TypeDeprecation:
		default:
			reading.TryGo(func() error { _, _, err := repo.Manifest(ctx, d); return err })
		}
	}
	return func() { _ = reading.Wait() }
}

// parallelReads bounds the manifests that are read ahead of a copy.
const parallelReads = 4

// lacks tells whether one repository has something attached to subject that
// another has not.
func (u *union) lacks(ctx context.Context, from, to *registry.Repository, subject ocispec.Descriptor) (bool, error) {
	if from.String() == to.String() {
		return false, nil
	}
	there, err := u.list(ctx, from, subject)
	if err != nil {
		return false, err
	}
	here, err := u.list(ctx, to, subject)
	return err == nil && slices.ContainsFunc(there, func(d ocispec.Descriptor) bool {
		return !slices.ContainsFunc(here, func(h ocispec.Descriptor) bool { return h.Digest == d.Digest })
	}), err
}

// Manifest implements meta.Source.
func (u *union) Manifest(ctx context.Context, d ocispec.Descriptor) (ocispec.Manifest, []byte, error) {
	repo := u.of(d)
	m, raw, err := repo.Manifest(ctx, d)
	for _, layer := range m.Layers {
		u.home[layer.Digest] = repo
	}
	return m, raw, err
}

// LayerFile implements meta.Source.
func (u *union) LayerFile(ctx context.Context, d ocispec.Descriptor, name string) ([]byte, error) {
	return u.of(d).LayerFile(ctx, d, name)
}

func (u *union) of(d ocispec.Descriptor) *registry.Repository {
	if repo := u.home[d.Digest]; repo != nil {
		return repo
	}
	return u.repos[0]
}
