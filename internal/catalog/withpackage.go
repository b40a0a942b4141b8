package catalog

import (
	"cmp"
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
)

// PackageOptions say how packages are searched for.
type PackageOptions struct {
	Cache   string // directory for package lists, which never change; "" keeps none
	Workers int    // images that are read at once; 0 is 16
	Events  event.Sink
}

// kindContents is the kind of cached package lists.
const kindContents = "contents"

// WithPackage keeps the records of images that have a package that meets the
// query, and says which. How many images do not tell what is in them is told as an
// event.
func WithPackage(ctx context.Context, reg *registry.Registry, records []Record, q Query, o PackageOptions) ([]Record, error) {
	seen := map[digest.Digest]bool{}
	var images []Record
	for _, r := range records {
		if !seen[r.Digest] {
			seen[r.Digest] = true
			images = append(images, r)
		}
	}
	contents, err := each(ctx, cmp.Or(o.Workers, defaultWorkers), images, func(ctx context.Context, r Record) (Contents, error) {
		c, err := packagesOf(ctx, reg, r, cache(o.Cache))
		if err != nil {
			return c, fmt.Errorf("packages of %s: %w", r.Label, err)
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	unknown := 0
	matches := map[digest.Digest][]string{}
	for i, c := range contents {
		if !c.Listed || c.Partial && q.NeedsSpecs() {
			unknown++
			continue
		}
		for _, p := range c.Packages {
			if q.Match(p) {
				matches[images[i].Digest] = append(matches[images[i].Digest], p.String())
			}
		}
	}
	if unknown > 0 {
		o.Events.Info("find", "%d of %d images do not tell enough of their packages", unknown, len(images))
	}
	kept := []Record{}
	for _, r := range records {
		if found := matches[r.Digest]; len(found) > 0 {
			r.Packages = found
			kept = append(kept, r)
		}
	}
	return kept, nil
}

// packagesOf returns what is in an image; nothing, if that cannot be found out.
func packagesOf(ctx context.Context, reg *registry.Registry, r Record, c cache) (Contents, error) {
	var contents Contents
	key := r.Digest.String()
	if c.read(kindContents, key, &contents) {
		return contents, nil
	}
	repo, err := reg.Repository(r.Label.Repository())
	if err != nil {
		return contents, err
	}
	d, err := repo.Resolve(ctx, key)
	if err == nil {
		contents, err = ReadContents(ctx, repo, d)
	}
	switch fault.KindOf(err) {
	case fault.NotFound, fault.Invalid, fault.Refused, fault.Unauthorized: // of somebody else's image too, that an index lists
		return Contents{}, nil
	}
	if err == nil && contents.Listed && !contents.Partial {
		contents.Env = nil
		c.write(kindContents, key, contents)
	}
	return contents, err
}
