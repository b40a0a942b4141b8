// Package catalog finds out what is in a namespace of a registry, and what is
// attached to one image.
package catalog

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// defaultWorkers is how many requests are under way at once.
const defaultWorkers = 16

// Depth is how much is found out about each label.
type Depth int

// The depths.
const (
	All     Depth = iota // test results and deprecations too: two requests or three for each image
	Images               // digest, size, date and mount point: one for each image
	Digests              // likewise, and what is no image does no harm
	Labels               // only labels: one request for each repository
)

// Options say how to look. The zero value matches names by prefix and finds out
// all.
type Options struct {
	Exact   bool // the name must be the whole name
	Depth   Depth
	Workers int // requests under way at once; 0 is 16

	// Repositories are paths to look at, for registries that offer no list of them.
	// Those that do not exist are skipped. nil asks the registry.
	Repositories []string
	// Listed are the labels there are, with digest, size and date, where somebody
	// else has listed them; nil asks the registry.
	Listed []Record

	// Denied is called, possibly concurrently, with each repository that may not be
	// read, which is then left out. If it is nil, the first of them is the error.
	Denied func(repository string, err error)
}

// denied tells whether the repository is one to be left out, and tells of it.
func (o Options) denied(repository string, err error) bool {
	if o.Denied == nil || fault.KindOf(err) != fault.Unauthorized {
		return false
	}
	o.Denied(repository, err)
	return true
}

// Record is one label in a registry and the image that it names.
type Record struct {
	Label      label.Label   `json:"label"`
	Digest     digest.Digest `json:"digest"`
	ID         string        `json:"id"`
	Size       int64         `json:"size"`              // of the image, in bytes
	Created    string        `json:"created,omitempty"` // RFC 3339
	Mount      string        `json:"mount,omitempty"`
	Results    []Result      `json:"results,omitempty"` // newest per system
	Deprecated bool          `json:"deprecated,omitempty"`
	// Deprecation says why, and what to use instead; nil if it is not deprecated.
	Deprecation *meta.Deprecation `json:"deprecation,omitempty"`
	HasMeta     bool              `json:"meta"`
	// Packages are those that were searched for, as specs.
	Packages []string `json:"packages,omitempty"`
	// Problem says why the image cannot be used; "" if it can.
	Problem string `json:"problem,omitempty"`
}

// Result is what the newest test results on one system say, as shown in
// annotations. It is for display: decisions are made from the documents.
type Result struct {
	System string      `json:"system"`
	State  meta.State  `json:"verdict"`
	Counts meta.Counts `json:"tests"`
	When   string      `json:"when,omitempty"`
}

// Find lists the images that pattern, whose namespace must be given, names: by their
// labels, or by id or digest, for which every label in the namespace has to be resolved.
// They are ordered by name, then newest version first, then tag, system, uarch.
func Find(ctx context.Context, reg *registry.Registry, pattern label.Label, o Options) ([]Record, error) {
	if pattern.Namespace == "" {
		return nil, fault.New(fault.Usage, "find: no namespace given")
	}
	o.Workers = cmp.Or(o.Workers, defaultWorkers)
	if o.Listed != nil && o.Depth > All {
		return onlyListed(o.Listed, pattern, o), nil
	}
	places, err := placesOf(ctx, reg, pattern, o)
	if err != nil {
		return nil, err
	}
	if o.Depth < Labels || pattern.ByDigest() {
		tagged, err := each(ctx, o.Workers, places, func(ctx context.Context, p place) (place, error) {
			return resolve(ctx, p, o)
		})
		if err != nil {
			return nil, err
		}
		places = slices.DeleteFunc(tagged, func(p place) bool {
			return p.image.Digest == "" || !matches(p.label, p.image.Digest, pattern, o)
		})
	}
	records, err := describeAll(ctx, places, o)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(records, compare)
	return records, nil
}

// matches tells whether the pattern names an image by its label, id or digest.
func matches(l label.Label, d digest.Digest, pattern label.Label, o Options) bool {
	return l.Match(pattern, !o.Exact) || l.MatchDigest(pattern, d)
}

// placesOf lists the labels that the pattern names, or may name once it is known what
// image they have.
func placesOf(ctx context.Context, reg *registry.Registry, pattern label.Label, o Options) ([]place, error) {
	if o.Listed != nil {
		return listedPlaces(reg, onlyListed(o.Listed, pattern, o)), nil
	}
	if pattern.ByDigest() {
		pattern.Name, pattern.Tag = "", ""
	}
	repositories, err := candidates(ctx, reg, pattern, o)
	if err != nil {
		return nil, err
	}
	labelled, err := each(ctx, o.Workers, repositories, func(ctx context.Context, name string) ([]place, error) {
		return list(ctx, reg, name, pattern, o)
	})
	return slices.Concat(labelled...), err
}

// onlyListed returns those records of a listing that the pattern names.
func onlyListed(listed []Record, pattern label.Label, o Options) []Record {
	kept := []Record{}
	for _, r := range listed {
		if matches(r.Label, r.Digest, pattern, o) {
			kept = append(kept, r)
		}
	}
	slices.SortFunc(kept, compare)
	return kept
}

func listedPlaces(reg *registry.Registry, listed []Record) []place {
	repos := map[string]*registry.Repository{}
	var places []place
	for _, r := range listed {
		name := r.Label.Repository()
		if repos[name] == nil {
			repo, err := reg.Repository(name)
			if err != nil {
				continue // a name that no registry allows is not there
			}
			repos[name] = repo
		}
		places = append(places, place{repo: repos[name], label: r.Label, reference: r.Digest.String()})
	}
	return places
}

// each calls do for all items, several at once, and returns the results in the
// order of the items.
func each[T, R any](ctx context.Context, workers int, items []T, do func(context.Context, T) (R, error)) ([]R, error) {
	results := make([]R, len(items))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i, item := range items {
		group.Go(func() (err error) {
			results[i], err = do(ctx, item)
			return err
		})
	}
	return results, group.Wait()
}

// candidates returns the paths of the repositories that may hold a match. Where
// the pattern names one repository, the registry need not list any.
func candidates(ctx context.Context, reg *registry.Registry, pattern label.Label, o Options) ([]string, error) {
	tagless := pattern
	tagless.Tag = "any"
	complete := len(tagless.Missing()) == 0 && pattern.System != label.AnySystem
	if complete && o.Exact {
		return []string{pattern.Repository()}, nil
	}
	all := o.Repositories
	if all == nil {
		var err error
		all, err = reg.Repositories(ctx, pattern.Namespace)
		if fault.KindOf(err) == fault.Refused && complete {
			return []string{pattern.Repository()}, nil // longer names cannot be known
		}
		if err != nil {
			return nil, err
		}
	}
	var kept []string
	tagless.Tag = ""
	for _, name := range all {
		if l, err := label.FromRepository(name, ""); err == nil && l.Match(tagless, !o.Exact) {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

// place is a label in a repository and the image that it names.
type place struct {
	repo  *registry.Repository
	tags  registry.TagList
	label label.Label
	image ocispec.Descriptor // without a digest if the tag vanished

	reference string // digest by which the image is known; "" goes by the tag
}

// list returns the labels of a repository that the pattern names.
func list(ctx context.Context, reg *registry.Registry, name string, pattern label.Label, o Options) ([]place, error) {
	repo, err := reg.Repository(name)
	if err != nil {
		return nil, err
	}
	tags, err := repo.TagList(ctx)
	if fault.KindOf(err) == fault.NotFound || o.denied(name, err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var places []place
	for _, tag := range tags.Tags {
		if l, err := label.FromRepository(name, tag); err == nil && l.Match(pattern, !o.Exact) {
			places = append(places, place{repo: repo, tags: tags, label: l})
		}
	}
	return places, nil
}

func resolve(ctx context.Context, p place, o Options) (place, error) {
	var err error
	p.image, err = p.repo.Resolve(ctx, cmp.Or(p.reference, p.label.Tag))
	if fault.KindOf(err) == fault.NotFound || o.denied(p.repo.Name(), err) {
		return place{}, nil
	}
	return p, err
}

// describeAll reads each image once, however many labels it has.
func describeAll(ctx context.Context, places []place, o Options) ([]Record, error) {
	type image struct {
		repository string
		digest     digest.Digest
	}
	index := map[image]int{}
	var images []place
	for _, p := range places {
		key := image{p.repo.Name(), p.image.Digest}
		if _, seen := index[key]; !seen {
			index[key] = len(images)
			images = append(images, p)
		}
	}
	described, err := each(ctx, o.Workers, images, func(ctx context.Context, p place) (Record, error) {
		return describe(ctx, p, o)
	})
	if err != nil {
		return nil, err
	}
	records := make([]Record, 0, len(places))
	for _, p := range places {
		r := described[index[image{p.repo.Name(), p.image.Digest}]]
		r.Label = p.label
		records = append(records, r)
	}
	return records, nil
}

func describe(ctx context.Context, p place, o Options) (Record, error) {
	if o.Depth == Labels {
		return Record{Label: p.label}, nil
	}
	r := Record{Label: p.label, Digest: p.image.Digest, ID: label.ID(p.image.Digest)}
	if o.Depth == Digests {
		return r, nil
	}
	m, _, err := p.repo.Manifest(ctx, p.image)
	if fault.KindOf(err) == fault.Invalid {
		r.Problem = err.Error()
		return r, nil
	}
	if err != nil {
		return r, err
	}
	r.fill(m)
	if o.Depth == Images {
		return r, nil
	}
	attached, err := p.repo.ReferrersListed(ctx, p.image, p.tags)
	if err != nil {
		return r, err
	}
	r.attachments(attached)
	if r.Deprecated {
		err = r.readDeprecation(ctx, p)
	}
	return r, err
}

// readDeprecation reads the record of an image whose annotations say that it is
// deprecated. The record wins.
func (r *Record) readDeprecation(ctx context.Context, p place) error {
	records, _, err := meta.Deprecations(ctx, p.repo, p.image)
	if len(records) > 0 {
		r.Deprecated = records[0].State == meta.Active
	}
	if len(records) > 0 && r.Deprecated {
		r.Deprecation = &records[0]
	}
	return err
}

func (r *Record) fill(m ocispec.Manifest) {
	r.Created, r.Mount = m.Annotations[ocispec.AnnotationCreated], m.Annotations[meta.AnnotationMount]
	for _, layer := range m.Layers {
		r.Size += layer.Size
	}
	if _, err := meta.ImageLayer(m); err != nil {
		r.Problem = "not a uenv image: " + err.Error()
	}
}

// noMeta is the problem of an image that clients can use with trouble.
const noMeta = "no metadata attached"

// attachments reads the verdicts and the deprecation off the annotations. What
// has none is of another tool and counts as untested on the image's own system,
// unless there is a verdict for it.
func (r *Record) attachments(attached []ocispec.Descriptor) {
	newest := map[string]meta.Verdict{}
	foreign := false
	var deprecation struct{ state, when string }
	for _, a := range attached {
		switch a.ArtifactType {
		case meta.TypeMeta:
			r.HasMeta = true
		case meta.TypeReframe:
			v, ok := meta.VerdictOf(a.Annotations)
			if old, seen := newest[v.System]; ok && (!seen || v.When.After(old.When.Time)) {
				newest[v.System] = v
			}
			foreign = foreign || !ok
		case meta.TypeDeprecation:
			if when := a.Annotations[meta.AnnotationWhen]; when > deprecation.when {
				deprecation.state, deprecation.when = a.Annotations[meta.AnnotationState], when
			}
		}
	}
	if _, seen := newest[r.Label.System]; foreign && !seen {
		newest[r.Label.System] = meta.Verdict{State: meta.Untested}
	}
	r.Deprecated = deprecation.state == meta.Active
	for system, v := range newest {
		result := Result{System: system, State: v.State, Counts: v.Counts}
		if !v.When.IsZero() {
			result.When = v.When.UTC().Format(time.RFC3339)
		}
		r.Results = append(r.Results, result)
	}
	slices.SortFunc(r.Results, func(a, b Result) int { return cmp.Compare(a.System, b.System) })
	if !r.HasMeta && r.Problem == "" {
		r.Problem = noMeta
	}
}

// compare is the order in which images are listed. Each part is compared only
// where those before it are the same: a namespace has thousands.
func compare(a, b Record) int {
	if order := cmp.Compare(a.Label.Name, b.Label.Name); order != 0 {
		return order
	}
	if order := label.CompareVersions(b.Label.Version, a.Label.Version); order != 0 {
		return order
	}
	if order := label.CompareVersions(b.Label.Tag, a.Label.Tag); order != 0 {
		return order
	}
	return cmp.Or(cmp.Compare(a.Label.System, b.Label.System), cmp.Compare(a.Label.UArch, b.Label.UArch))
}
