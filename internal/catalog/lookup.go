package catalog

import (
	"context"
	"slices"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/registry"
)

// Lookup finds the images that a label of which parts are left out names exactly. A
// listing (URL or file, "" for none) tells in which repositories to look, without which
// most registries have to be asked for all of theirs. If that leads nowhere the registry
// is asked, or if it offers no list the namespace's index. All of these may be out of
// date, so which images there are is only believed of the registry.
func Lookup(ctx context.Context, reg *registry.Registry, pattern label.Label, listing string, depth Depth) ([]Record, error) {
	o := Options{Exact: true, Depth: depth}
	var listed []Record
	var unlisted error
	if listing != "" {
		listed, unlisted = readListing(ctx, listing, pattern.Namespace, "")
	}
	if o.Repositories = repositoriesOf(listed, pattern); o.Repositories != nil {
		if records, err := Find(ctx, reg, pattern, o); err != nil || len(records) > 0 {
			return records, err
		}
		o.Repositories = nil
	}
	records, err := Find(ctx, reg, pattern, o)
	if fault.KindOf(err) != fault.Refused {
		return records, err
	}
	indexed, _, missing := readIndex(ctx, reg, pattern.Namespace, "")
	switch {
	case missing == nil:
		o.Repositories = append([]string{}, repositoriesOf(indexed, pattern)...)
		return Find(ctx, reg, pattern, o)
	case listing != "":
		return nil, unlisted
	}
	return nil, err
}

// repositoriesOf returns where the images lie that the pattern names but for the tag, nil
// if there are none.
func repositoriesOf(known []Record, pattern label.Label) []string {
	var paths []string
	if !pattern.ByDigest() {
		pattern.Tag = ""
	}
	for _, r := range known {
		if matches(r.Label, r.Digest, pattern, Options{Exact: true}) {
			paths = append(paths, r.Label.Repository())
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
