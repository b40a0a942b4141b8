package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"uenv-ci.dev/internal/catalog"
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
		a, err = assemblyOf(ctx, found, m, local, baseCache(o.Cache), true)
	}
	if err == nil {
		err = a.seed(ctx, found.Repo, m, path, o)
	}
	if errors.Is(err, registry.ErrUnfit) && ctx.Err() == nil {
		o.Events.Info("pull", "local images did not match their indexes: reading them")
		baseCache(o.Cache).forget()
		if a, err = assemblyOf(ctx, found, m, local, baseCache(o.Cache), false); err == nil {
			err = a.seed(ctx, found.Repo, m, path, o)
		}
	}
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return false
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, registry.ErrUnfit):
		forgetMisfit(o)
	default:
		o.Events.Info("pull", "fetching the whole image: %v", err)
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
// in it over the newest one here. The label is looked up as catalog.Lookup does. In the
// directory cache, unless it is "", it keeps what local images consist of.
func FindUpgrade(ctx context.Context, reg *registry.Registry, l label.Label, listing string, local *localrepo.Repo, cache string) (Upgrade, error) {
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
	records, err := catalog.Lookup(ctx, reg, l, listing, catalog.All)
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
			err := fault.New(fault.Usage, "%s exists for more than one system or microarchitecture", l)
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
	a, err := assemblyOf(ctx, u.found, m, local, cache, true)
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
