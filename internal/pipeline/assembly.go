package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/chunk"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// base is a local image that may have parts of a new one.
type base struct {
	path  string
	index chunk.Index
}

// Assembly is how an image can be put together from local ones.
type Assembly struct {
	Plan  chunk.Plan
	Size  int64
	bases []base
}

// Pays tells whether this transfers less than a download would.
func (a Assembly) Pays() bool {
	return len(a.Plan.Copies) > 0 && a.Plan.Fetched*100 <= a.Size*worthwhile
}

// basesFor returns the images of the same name that a local repository has, the
// nearest first: for the same system, then the newest.
func basesFor(ctx context.Context, local *localrepo.Repo, l label.Label, target digest.Digest) ([]localrepo.Record, error) {
	records, err := local.Find(ctx, label.Label{Name: l.Name}, false)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(records, func(a, b localrepo.Record) int {
		return cmp.Or(
			cmp.Compare(distance(a.Label, l), distance(b.Label, l)),
			label.CompareVersions(b.Label.Version, a.Label.Version), b.Date.Compare(a.Date))
	})
	seen := map[digest.Digest]bool{target: true}
	records = slices.DeleteFunc(records, func(r localrepo.Record) bool {
		skip := seen[r.Digest] || !fileExists(local.Paths(r.Digest).Image)
		seen[r.Digest] = true
		return skip
	})
	return records[:min(len(records), mostBases)], nil
}

// LastImage returns the file of the newest image of the same name, system and
// microarchitecture that a local repository has, "" if there is none: what a build
// for that label has most in common with.
func LastImage(ctx context.Context, local *localrepo.Repo, l label.Label) (string, error) {
	records, err := basesFor(ctx, local, l, "")
	if err != nil || len(records) == 0 || records[0].Label.System != l.System || records[0].Label.UArch != l.UArch {
		return "", err
	}
	return local.Paths(records[0].Digest).Image, nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// distance orders labels by how much of them differs from what is wanted.
func distance(have, want label.Label) int {
	d := 0
	for _, differs := range []bool{have.UArch != want.UArch, have.System != want.System} {
		d *= 2
		if differs {
			d++
		}
	}
	return d
}

// assemblyOf plans how the image m is put together from local ones. An image
// without a chunk index, or with nothing to start from, is of kind NotFound. With
// believe, what a registry says of a local image need not be read from that.
func assemblyOf(ctx context.Context, found Found, m image.Manifest, local *localrepo.Repo, cache baseCache, believe bool) (Assembly, error) {
	records, err := basesFor(ctx, local, found.Label, m.Descriptor.Digest)
	if err != nil {
		return Assembly{}, err
	}
	if len(records) == 0 {
		return Assembly{}, fault.New(fault.NotFound, "no other image of %s is here", found.Label.Name)
	}
	a := Assembly{Size: m.Layer.Size, bases: make([]base, len(records))}
	var index chunk.Index
	group, asking := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		index, err = image.FetchChunks(asking, found.Repo, m.Descriptor, m.Layer)
		return err
	})
	for i, r := range records {
		b := &a.bases[i]
		b.path = local.Paths(r.Digest).Image
		group.Go(func() error {
			var kept bool
			if b.index, kept = cache.get(b.path, r.Digest); kept || !believe {
				return nil
			}
			// If the registry does not have it, the image itself is read.
			if x, err := toldIndex(asking, found, local, r); err == nil {
				cache.put(b.path, r.Digest, x)
				b.index = x
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Assembly{}, err
	}
	var indexes []chunk.Index
	for i, r := range records {
		b := &a.bases[i]
		if b.index.Grain != index.Grain {
			if b.index, err = cache.index(ctx, b.path, r.Digest, index.Grain); err != nil {
				return Assembly{}, err
			}
		}
		indexes = append(indexes, b.index)
	}
	a.Plan = chunk.MakePlan(index, indexes)
	return a, nil
}

// maxManifest bounds a manifest that is read from a local repository, in bytes.
const maxManifest = 4 << 20

// toldIndex fetches the index that is attached to a local image in the registry that
// another one of its name comes from. That it lies costs a second attempt.
func toldIndex(ctx context.Context, found Found, local *localrepo.Repo, r localrepo.Record) (chunk.Index, error) {
	paths := local.Paths(r.Digest)
	raw, err := bounded.ReadFile(paths.Manifest, maxManifest)
	if err != nil {
		return chunk.Index{}, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil || digest.FromBytes(raw) != r.Digest {
		return chunk.Index{}, fault.New(fault.Invalid, "%s is not the manifest of %s", paths.Manifest, r.Digest)
	}
	layer, err := meta.ImageLayer(m)
	if err != nil {
		return chunk.Index{}, err
	}
	if info, err := os.Stat(paths.Image); err != nil || info.Size() != layer.Size {
		return chunk.Index{}, fault.New(fault.Invalid, "%s is not of the size that its manifest says", paths.Image)
	}
	l := r.Label
	l.Namespace = found.Label.Namespace
	repo, err := found.Repo.Beside(l.Repository())
	if err != nil {
		return chunk.Index{}, err
	}
	return image.FetchChunks(ctx, repo, ocispec.Descriptor{MediaType: m.MediaType, Digest: r.Digest, Size: int64(len(raw))}, layer)
}

// remnantOf plans how a damaged image is mended from what is left of it: chunks
// are looked for where they must be.
func remnantOf(ctx context.Context, found Found, m image.Manifest, path string) (Assembly, error) {
	index, err := image.FetchChunks(ctx, found.Repo, m.Descriptor, m.Layer)
	if err != nil {
		return Assembly{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Assembly{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Assembly{}, err
	}
	var spans []chunk.Span
	for _, c := range index.Chunks {
		if c.Offset+c.Length <= info.Size() {
			spans = append(spans, c.Span)
		}
	}
	left, err := chunk.BuildAt(ctx, f, info.Size(), m.Layer.Digest, spans)
	if err != nil {
		return Assembly{}, err
	}
	return Assembly{Plan: chunk.MakePlan(index, []chunk.Index{left}), Size: m.Layer.Size, bases: []base{{path, left}}}, nil
}

// seed assembles the image where its download will look for it, and resumes an earlier
// attempt. The download repairs whatever goes wrong. The error is of kind NotFound if
// assembling would not save anything.
func (a Assembly) seed(ctx context.Context, repo *registry.Repository, m image.Manifest, path string, o PullOptions) error {
	if !a.Pays() {
		return fault.New(fault.NotFound, "too little of it is here")
	}
	files := make([]*os.File, len(a.bases))
	for i, b := range a.bases {
		f, err := os.Open(b.path)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	parts := make([]registry.Part, len(a.Plan.Copies))
	for i, c := range a.Plan.Copies {
		parts[i] = registry.Part{Span: registry.Span(c.Span), From: files[c.Base], At: c.From}
	}
	spans := make([]registry.Span, len(a.Plan.Fetch))
	for i, s := range a.Plan.Fetch {
		spans[i] = registry.Span(s)
	}
	o.Events.Info("pull", "fetching %d of %d bytes, the rest is available locally", a.Plan.Fetched, a.Size)
	so := registry.DownloadOptions{Stage: "pull", Limit: o.Limit, Events: o.Events}
	return repo.Seed(ctx, m.Layer, path, so, func(ctx context.Context, f *registry.Filling) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return f.Copy(ctx, parts) })
		group.Go(func() error { return f.Fetch(ctx, spans, a.Plan.Spare, o.Connections) })
		return group.Wait()
	})
}
