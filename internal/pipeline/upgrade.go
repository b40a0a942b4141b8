package pipeline

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/chunk"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/registry"
)

const (
	// mostBases is how many local images are looked at for parts of a new one.
	mostBases = 3
	// worthwhile is the greatest part of an image, in per cent, that is fetched by
	// difference: beyond it, one download is faster.
	worthwhile = 70
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

// Pays tells whether this moves less than a download would.
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
			catalog.CompareVersions(b.Label.Version, a.Label.Version), b.Date.Compare(a.Date))
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
// without a chunk index, or with nothing to start from, is of kind NotFound.
func assemblyOf(ctx context.Context, found Found, m image.Manifest, local *localrepo.Repo, cache baseCache) (Assembly, error) {
	records, err := basesFor(ctx, local, found.Label, m.Descriptor.Digest)
	if err != nil {
		return Assembly{}, err
	}
	if len(records) == 0 {
		return Assembly{}, fault.New(fault.NotFound, "no other image of %s is here", found.Label.Name)
	}
	index, err := image.FetchChunks(ctx, found.Repo, m.Descriptor, m.Layer)
	if err != nil {
		return Assembly{}, err
	}
	a := Assembly{Size: m.Layer.Size}
	var indexes []chunk.Index
	for _, r := range records {
		path := local.Paths(r.Digest).Image
		// The sums of what is here are computed here: what a registry says of it
		// need not be true of this file.
		x, err := cache.index(ctx, path, r.Digest, index.Grain)
		if err != nil {
			return Assembly{}, err
		}
		a.bases, indexes = append(a.bases, base{path, x}), append(indexes, x)
	}
	a.Plan = chunk.MakePlan(index, indexes)
	return a, nil
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

// seed puts together what an assembly says at the place where the download of the
// image will look for it, and goes on where an earlier attempt was. Whatever goes
// wrong, the download makes good.
func (a Assembly) seed(ctx context.Context, repo *registry.Repository, m image.Manifest, path string, o PullOptions) error {
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
	so := registry.DownloadOptions{Stage: "pull", Limit: o.Limit, Events: o.Events}
	return repo.Seed(ctx, m.Layer, path, so, func(ctx context.Context, f *registry.Filling) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return f.Copy(ctx, parts) })
		group.Go(func() error { return f.Fetch(ctx, spans, o.Connections) })
		return group.Wait()
	})
}

// seedImage starts an image with what local ones have of it, if that pays, and
// tells whether it did. It never fails: a download does without.
func seedImage(ctx context.Context, found Found, m image.Manifest, local *localrepo.Repo, path string, o PullOptions) bool {
	var a Assembly
	var err error
	switch {
	case o.assembly != nil:
		a = *o.assembly
	case o.remnant != "":
		a, err = remnantOf(ctx, found, m, o.remnant)
	default:
		a, err = assemblyOf(ctx, found, m, local, baseCache(o.Cache))
	}
	if err == nil && !a.Pays() {
		return false
	}
	if err == nil {
		o.Events.Info("pull", "%d of %d bytes are fetched, the rest is here", a.Plan.Fetched, a.Size)
		err = a.seed(ctx, found.Repo, m, path, o)
	}
	switch {
	case err == nil, ctx.Err() != nil, fault.KindOf(err) == fault.NotFound:
	case errors.Is(err, registry.ErrUnfit):
		forgetMisfit(o)
	default:
		o.Events.Info("pull", "not by difference: %v", err)
	}
	return a.Size > 0
}

// forgetMisfit tells that local images are not what they were taken for.
func forgetMisfit(o PullOptions) {
	o.Events.Info("pull", "what was here did not fit: the whole image is fetched")
	baseCache(o.Cache).forget()
}

// Upgrade is what there is to gain, and what it costs.
type Upgrade struct {
	From    *localrepo.Record `json:"from,omitempty"` // the newest that is here; nil if there is none
	To      catalog.Record    `json:"to"`
	Current bool              `json:"current"` // the newest is here
	Fetch   int64             `json:"fetch"`   // bytes that are not here
	Diff    *Diff             `json:"diff,omitempty"`

	found    Found
	assembly *Assembly
}

// FindUpgrade looks for the newest image that a label names, and says what is new
// in it over the newest one here. In the directory cache, unless it is "", it keeps
// what local images consist of.
func FindUpgrade(ctx context.Context, reg *registry.Registry, l label.Label, local *localrepo.Repo, cache string) (Upgrade, error) {
	if l.Name == "" {
		return Upgrade{}, fault.New(fault.Usage, "label %q has no name", l)
	}
	here, err := basesFor(ctx, local, l, "")
	if err != nil {
		return Upgrade{}, err
	}
	if len(here) > 0 {
		l.System, l.UArch = cmp.Or(l.System, here[0].Label.System), cmp.Or(l.UArch, here[0].Label.UArch)
	}
	records, err := catalog.Find(ctx, reg, l, catalog.Options{Exact: true})
	if err != nil {
		return Upgrade{}, err
	}
	records = slices.DeleteFunc(records, func(r catalog.Record) bool { return r.Deprecated || r.Problem != "" })
	if len(records) == 0 {
		err := fault.New(fault.NotFound, "no image matches %s in %s, or only deprecated ones", l, reg)
		return Upgrade{}, fault.WithHint(err, "'uenv-ci find %s' lists what there is", label.Label{Namespace: l.Namespace, Name: l.Name})
	}
	newest := records[0]
	for _, r := range records[1:] {
		if r.Label.System != newest.Label.System || r.Label.UArch != newest.Label.UArch {
			err := fault.New(fault.Usage, "%s is there for more than one system or microarchitecture", l)
			return Upgrade{}, fault.WithHint(err, "say which: @%s%%%s or @%s%%%s", newest.Label.System, newest.Label.UArch, r.Label.System, r.Label.UArch)
		}
	}
	return describeUpgrade(ctx, reg, newest, local, baseCache(cache))
}

func describeUpgrade(ctx context.Context, reg *registry.Registry, newest catalog.Record, local *localrepo.Repo, cache baseCache) (Upgrade, error) {
	u := Upgrade{To: newest, Fetch: newest.Size}
	repo, err := reg.Repository(newest.Label.Repository())
	if err != nil {
		return u, err
	}
	desc, err := repo.Resolve(ctx, newest.Digest.String())
	if err != nil {
		return u, err
	}
	u.found = Found{Label: newest.Label, Repo: repo, Descriptor: desc}
	m, err := image.Read(ctx, repo, desc)
	if err != nil {
		return u, err
	}
	bare := newest.Label
	bare.Namespace = ""
	records, err := local.Find(ctx, bare, false)
	if err != nil {
		return u, err
	}
	if len(records) > 0 && records[0].Digest == newest.Digest && present(local.Paths(newest.Digest), m, false) {
		u.Current, u.Fetch, u.From = true, 0, &records[0]
		return u, nil
	}
	if present(local.Paths(newest.Digest), m, false) {
		u.Fetch = 0
	}
	here, err := basesFor(ctx, local, newest.Label, newest.Digest)
	if err != nil || len(here) == 0 {
		return u, err
	}
	u.From = &here[0]
	a, err := assemblyOf(ctx, u.found, m, local, cache)
	switch {
	case err == nil:
		u.assembly = &a
		if a.Pays() {
			u.Fetch = min(u.Fetch, a.Plan.Fetched)
		}
	case fault.KindOf(err) != fault.NotFound:
		return u, err
	}
	return u, u.compare(ctx, local)
}

// compare says what is new, where both images tell.
func (u *Upgrade) compare(ctx context.Context, local *localrepo.Repo) error {
	from, err := LocalSide(local, *u.From)
	if err != nil {
		return nil // it is no worse for that
	}
	to, err := RegistrySide(ctx, u.found)
	if k := fault.KindOf(err); err != nil {
		if k == fault.Network || k == fault.Interrupted || k == fault.Unauthorized {
			return err
		}
		return nil
	}
	if d, err := Compare(from, to); err == nil {
		u.Diff = &d
	}
	return nil
}

// Pull fetches the newest image.
func (u Upgrade) Pull(ctx context.Context, local *localrepo.Repo, o PullOptions) (Pulled, error) {
	o.assembly = u.assembly
	return Pull(ctx, u.found, local, o)
}
