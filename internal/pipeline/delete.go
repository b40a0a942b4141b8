package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/lifecycle"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
)

// Deletion is what was deleted from a registry, or would be.
type Deletion struct {
	DryRun bool               `json:"dry_run"`
	Images []lifecycle.Doomed `json:"images"`
	Stay   int                `json:"stay"`  // images that were looked at and stay
	Bytes  int64              `json:"bytes"` // of the images that go; when they are freed is the registry's business
}

func (d *Deletion) add(doomed lifecycle.Doomed) {
	d.Images, d.Bytes = append(d.Images, doomed), d.Bytes+doomed.Bytes
}

// Delete deletes one label, and with the last label the image and all that is
// attached to it. Otherwise than for a dry run, what is found by its content key
// goes as well, so that no build brings it back.
func Delete(ctx context.Context, reg *registry.Registry, l label.Label, dry bool) (Deletion, error) {
	out := Deletion{DryRun: dry, Images: []lifecycle.Doomed{}}
	repo, err := reg.Repository(l.Repository())
	if err != nil {
		return out, err
	}
	doomed, err := lifecycle.Examine(ctx, repo, l.Tag)
	if err != nil {
		return out, err
	}
	out.add(doomed)
	if dry {
		return out, nil
	}
	return out, remove(ctx, reg, l, doomed)
}

// remove deletes an image, after what would bring it back, unless that is refused.
func remove(ctx context.Context, reg *registry.Registry, l label.Label, d lifecycle.Doomed) error {
	return d.Delete(ctx, func(ctx context.Context) error {
		if d.Key == "" {
			return nil
		}
		if err := forgetKey(ctx, reg, l, d.Key, d.Digest); err != nil {
			return fmt.Errorf("forget its content key: %w", err)
		}
		return nil
	})
}

// forgetKey deletes an image where it is found by its content key.
func forgetKey(ctx context.Context, reg *registry.Registry, l label.Label, key string, image digest.Digest) error {
	for _, perChange := range []bool{false, true} {
		repo, err := keyStore{registry: reg, label: l}.repository(perChange)
		if err != nil {
			return err
		}
		tag := plan.KeyTag(key)
		d, err := repo.Resolve(ctx, tag)
		if fault.KindOf(err) == fault.NotFound || err == nil && d.Digest != image {
			continue
		}
		if err == nil {
			err = repo.RemoveFamily(ctx, d, []string{tag})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// LeastAge is the minimum age of what is pruned: an image that is being published has no
// tag yet.
const LeastAge = 24 * time.Hour

// PruneOptions say what is pruned.
type PruneOptions struct {
	lifecycle.Retention
	Dry    bool
	Events event.Sink
}

// Prune deletes the expired images of all repositories that the pattern names by
// the beginning of their names. It stops at the first failure; what it tells of was
// deleted until then.
func Prune(ctx context.Context, reg *registry.Registry, pattern label.Label, o PruneOptions) (Deletion, error) {
	out := Deletion{DryRun: o.Dry, Images: []lifecycle.Doomed{}}
	places, err := repositoriesOf(ctx, reg, pattern)
	if err != nil {
		return out, err
	}
	for i, place := range places {
		repo, err := reg.Repository(place.Repository())
		if err != nil {
			return out, err
		}
		doomed, stay, err := lifecycle.Expired(ctx, repo, o.Retention)
		if fault.KindOf(err) == fault.NotFound {
			continue // nothing in it
		}
		if err != nil {
			return out, fmt.Errorf("look into %s: %w", repo.Name(), err)
		}
		out.Stay += stay
		for _, d := range doomed {
			if !o.Dry {
				if err := remove(ctx, reg, place, d); err != nil {
					return out, err
				}
			}
			out.add(d)
		}
		o.Events.Progress("prune", int64(i+1), int64(len(places)), "")
	}
	return out, nil
}

// repositoriesOf lists the repositories whose labels a pattern names.
func repositoriesOf(ctx context.Context, reg *registry.Registry, pattern label.Label) ([]label.Label, error) {
	pattern.Tag = ""
	names, err := reg.Repositories(ctx, pattern.Namespace)
	whole := pattern
	whole.Tag = "any"
	if fault.KindOf(err) == fault.Refused && len(whole.Missing()) == 0 {
		return []label.Label{pattern}, nil
	}
	if err != nil {
		return nil, err
	}
	var found []label.Label
	for _, name := range names {
		if l, err := label.FromRepository(name, ""); err == nil && l.Match(pattern, true) {
			found = append(found, l)
		}
	}
	return found, nil
}

// Relisted is what of an image's attachments was listed again.
type Relisted struct {
	Label    label.Label   `json:"label"`
	Digest   digest.Digest `json:"digest"`
	Listed   int           `json:"listed"`   // attached now
	Restored int           `json:"restored"` // of these, were lost from the list
	Asked    []string      `json:"asked"`    // repositories that were asked for more
}

// Relist lists again what was attached to an image and got lost from its list:
// what the same image has under its name in other namespaces, or is given by its
// digest, and is still in the repository of the image.
func Relist(ctx context.Context, reg *registry.Registry, found Found, namespaces []string, given []digest.Digest) (Relisted, error) {
	out := Relisted{Label: found.Label, Digest: found.Descriptor.Digest, Asked: []string{}}
	var candidates []ocispec.Descriptor
	for _, d := range given {
		desc, err := found.Repo.Resolve(ctx, d.String())
		if err != nil {
			return out, err
		}
		candidates = append(candidates, desc)
	}
	for _, namespace := range namespaces {
		other := found.Label
		if other.Namespace = namespace; namespace == found.Label.Namespace {
			continue
		}
		repo, err := reg.Repository(other.Repository())
		if err != nil {
			return out, err
		}
		more, err := repo.Referrers(ctx, found.Descriptor, "")
		if err != nil {
			return out, err
		}
		candidates, out.Asked = append(candidates, more...), append(out.Asked, repo.Name())
	}
	restored, err := found.Repo.RepairReferrers(ctx, found.Descriptor, candidates)
	if err != nil {
		return out, err
	}
	out.Restored = restored
	listed, err := found.Repo.Referrers(ctx, found.Descriptor, "")
	out.Listed = len(listed)
	for _, d := range given {
		if err == nil && !slices.ContainsFunc(listed, func(l ocispec.Descriptor) bool { return l.Digest == d }) {
			err = fault.New(fault.Invalid, "%s is not attached to %s", d, found.Label)
		}
	}
	return out, err
}
