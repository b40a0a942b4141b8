package registry

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TagList is what one listing of a repository's tags says.
type TagList struct {
	Tags []string // sorted, without those that clients use for records

	all map[string]bool
}

// TagList is like Tags. With what it returns, the referrers of many manifests
// take fewer requests.
func (p *Repository) TagList(ctx context.Context) (TagList, error) {
	all, err := p.store.tags(ctx)
	if err != nil {
		return TagList{}, fmt.Errorf("list tags of %s: %w", p, err)
	}
	list := TagList{all: make(map[string]bool, len(all))}
	for _, tag := range all {
		list.all[tag] = true
		if !isServiceTag(tag) && legalTag(tag) {
			list.Tags = append(list.Tags, tag)
		}
	}
	slices.Sort(list.Tags)
	list.Tags = slices.Compact(list.Tags)
	return list, nil
}

// ReferrersListed is Referrers for a repository whose tags were listed a moment
// ago: of the registry's own list and the one behind the fallback tag, what the
// tags say is not there is not asked for.
func (p *Repository) ReferrersListed(ctx context.Context, subject ocispec.Descriptor, list TagList) ([]ocispec.Descriptor, error) {
	found, err := p.listReferrers(ctx, subject, list.all)
	if err != nil {
		return nil, fmt.Errorf("list referrers of %s in %s: %w", subject.Digest, p, err)
	}
	sortReferrers(found)
	return found, nil
}
