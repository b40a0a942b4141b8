// Package pipeline composes the stages into whole verbs: build and publish;
// fetch, mount, test and attach; pull; run.
package pipeline

import (
	"cmp"
	"context"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/registry"
)

// Found is one image in a registry, resolved to its digest.
type Found struct {
	Label      label.Label
	Also       []label.Label // further labels of the image that the incomplete one named
	Repo       *registry.Repository
	Descriptor ocispec.Descriptor
}

// Locate finds the one image that a label names. An incomplete label must name a
// single image; it is looked up as catalog.Lookup does, in a listing too if there is one.
func Locate(ctx context.Context, reg *registry.Registry, l label.Label, listing string) (Found, error) {
	reference := l.Tag
	var also []label.Label
	if len(l.Missing()) > 0 {
		records, err := complete(ctx, reg, l, listing)
		if err != nil {
			return Found{}, err
		}
		l, reference = records[0].Label, records[0].Digest.String()
		for _, r := range records[1:] {
			also = append(also, r.Label)
		}
	}
	repo, err := reg.Repository(l.Repository())
	if err != nil {
		return Found{}, err
	}
	desc, err := repo.Resolve(ctx, reference)
	if fault.KindOf(err) == fault.NotFound {
		err = fault.New(fault.NotFound, "no image %s in %s", l, reg)
		return Found{}, fault.WithHint(err, "'uenv-ci find %s' lists what there is", label.Label{Namespace: l.Namespace, Name: l.Name})
	}
	if err != nil {
		return Found{}, err
	}
	return Found{Label: l, Also: also, Repo: repo, Descriptor: desc}, nil
}

// complete finds the image in the registry that l, which lacks parts, stands for.
// Several labels of the same image are as good as one.
func complete(ctx context.Context, reg *registry.Registry, l label.Label, listing string) ([]catalog.Record, error) {
	if l.Name == "" {
		return nil, fault.New(fault.Usage, "label %q has no name", l)
	}
	records, err := catalog.Lookup(ctx, reg, l, listing, catalog.Digests)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		err := fault.New(fault.NotFound, "no image matches %s in %s", l, reg)
		return nil, fault.WithHint(err, "'uenv-ci find %s' lists what there is", label.Label{Namespace: l.Namespace})
	}
	var names []string
	for _, r := range records {
		names = append(names, r.Label.String())
		if r.Digest != records[0].Digest {
			err = fault.New(fault.Usage, "%s names more than one image", l)
		}
	}
	return records, fault.WithHint(err, "say which: %s", strings.Join(names[:min(len(names), 10)], ", "))
}

// Complete returns l with the parts that it lacks taken from another label.
func Complete(l, from label.Label) label.Label {
	return label.Label{
		Namespace: cmp.Or(l.Namespace, from.Namespace), Name: cmp.Or(l.Name, from.Name), Version: cmp.Or(l.Version, from.Version),
		Tag: cmp.Or(l.Tag, from.Tag), System: cmp.Or(l.System, from.System), UArch: cmp.Or(l.UArch, from.UArch),
	}
}
