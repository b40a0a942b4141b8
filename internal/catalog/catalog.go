// Package catalog finds out what is in a namespace of a registry, and what is
// attached to one image.
package catalog

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
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

// Options say how to look. The zero value matches names by prefix and reads
// what each image is.
type Options struct {
	Exact     bool // the name must be the whole name
	NamesOnly bool // only labels and digests: one request per image less
	Workers   int
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
	HasMeta    bool          `json:"meta"`
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

// Find lists the images that pattern, whose namespace must be given, names.
// They are ordered by name, then newest version first, then tag, system, uarch.
func Find(ctx context.Context, reg *registry.Registry, pattern label.Label, o Options) ([]Record, error) {
	if pattern.Namespace == "" {
		return nil, fault.New(fault.Usage, "find: no namespace given")
	}
	repositories, err := candidates(ctx, reg, pattern, o)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []Record
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cmp.Or(o.Workers, defaultWorkers))
	for _, name := range repositories {
		group.Go(func() error {
			records, err := list(ctx, reg, name, pattern, o)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, records...)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(found, compare)
	return found, nil
}

// candidates returns the paths of the repositories that may hold a match. Where
// the pattern names one repository, the registry need not list any.
func candidates(ctx context.Context, reg *registry.Registry, pattern label.Label, o Options) ([]string, error) {
	tagless := pattern
	tagless.Tag = "any"
	if len(tagless.Missing()) == 0 && o.Exact {
		return []string{pattern.Repository()}, nil
	}
	all, err := reg.Repositories(ctx, pattern.Namespace)
	if err != nil {
		return nil, err
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

func list(ctx context.Context, reg *registry.Registry, name string, pattern label.Label, o Options) ([]Record, error) {
	repo, err := reg.Repository(name)
	if err != nil {
		return nil, err
	}
	tags, err := repo.Tags(ctx)
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []Record
	for _, tag := range tags {
		l, err := label.FromRepository(name, tag)
		if err != nil || !l.Match(pattern, !o.Exact) {
			continue
		}
		r, err := describe(ctx, repo, l, o)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// errGone tells that a tag vanished between being listed and being read.
var errGone = errors.New("the tag is gone")

func describe(ctx context.Context, repo *registry.Repository, l label.Label, o Options) (Record, error) {
	desc, err := repo.Resolve(ctx, l.Tag)
	if fault.KindOf(err) == fault.NotFound {
		return Record{}, errGone
	}
	if err != nil {
		return Record{}, err
	}
	r := Record{Label: l, Digest: desc.Digest, ID: desc.Digest.Encoded()[:16]}
	if o.NamesOnly {
		return r, nil
	}
	m, _, err := repo.Manifest(ctx, desc)
	if fault.KindOf(err) == fault.Invalid {
		r.Problem = err.Error()
		return r, nil
	}
	if err != nil {
		return r, err
	}
	r.fill(m)
	attached, err := repo.Referrers(ctx, desc, "")
	if err != nil {
		return r, err
	}
	r.attachments(attached)
	return r, nil
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

// attachments reads the verdicts and the deprecation off the annotations.
func (r *Record) attachments(attached []ocispec.Descriptor) {
	newest := map[string]meta.Verdict{}
	var deprecation struct{ state, when string }
	for _, a := range attached {
		switch a.ArtifactType {
		case meta.TypeMeta:
			r.HasMeta = true
		case meta.TypeReframe:
			v, ok := meta.VerdictOf(a.Annotations)
			if !ok {
				v = meta.Verdict{State: meta.Untested}
			}
			if old, seen := newest[v.System]; !seen || v.When.After(old.When.Time) {
				newest[v.System] = v
			}
		case meta.TypeDeprecation:
			if when := a.Annotations[meta.AnnotationWhen]; when > deprecation.when {
				deprecation.state, deprecation.when = a.Annotations[meta.AnnotationState], when
			}
		}
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
		r.Problem = "no metadata attached"
	}
}

func compare(a, b Record) int {
	return cmp.Or(
		cmp.Compare(a.Label.Name, b.Label.Name),
		CompareVersions(b.Label.Version, a.Label.Version),
		CompareVersions(b.Label.Tag, a.Label.Tag),
		cmp.Compare(a.Label.System, b.Label.System),
		cmp.Compare(a.Label.UArch, b.Label.UArch),
	)
}
