package pipeline

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/registry"
)

// RepairOptions say what is repaired and from where.
type RepairOptions struct {
	// Namespaces are where the images are looked for, by digest, in this order:
	// the local repository does not know from which one an image came.
	Namespaces []string
	Quick      bool            // believe images of the right size
	Only       []digest.Digest // these images; nil is all
	Events     event.Sink

	// Open returns the registry as it is open to a label's name, for images with a
	// token of their own; nil is always the same.
	Open func(label.Label) (*registry.Registry, error)
}

// Repaired is what became of an image that was not as it must be.
type Repaired struct {
	localrepo.Finding
	Repaired bool   `json:"repaired"`
	Note     string `json:"note"` // how, or why not
}

// Repair brings every image of the local repository that is missing, truncated or
// corrupt back to what its digest says. It also gives images of older clients,
// which kept no manifest, theirs, so that they can be verified. What the registry
// does not have stays as it is.
func Repair(ctx context.Context, reg *registry.Registry, local *localrepo.Repo, o RepairOptions) ([]Repaired, error) {
	findings, err := local.Verify(ctx, localrepo.VerifyOptions{Quick: o.Quick, Only: o.Only})
	if err != nil {
		return nil, err
	}
	all := []Repaired{}
	for _, f := range findings {
		if !f.Bad() && f.Condition != localrepo.Unverifiable {
			continue
		}
		r, err := repairImage(ctx, reg, local, f, o)
		if err != nil {
			return all, fmt.Errorf("repair image %s: %w", f.ID, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func repairImage(ctx context.Context, reg *registry.Registry, local *localrepo.Repo, f localrepo.Finding, o RepairOptions) (Repaired, error) {
	found, err := findDigest(ctx, reg, f.Digest, f.Labels, o)
	if fault.KindOf(err) == fault.NotFound {
		return Repaired{Finding: f, Note: "not in the registry"}, nil
	}
	if err != nil {
		return Repaired{}, err
	}
	m, err := image.Read(ctx, found.Repo, found.Descriptor)
	if err != nil {
		return Repaired{}, err
	}
	lock, err := local.Lock(ctx, f.Digest)
	if err != nil {
		return Repaired{}, err
	}
	defer lock.Unlock()
	pull := PullOptions{Events: o.Events}
	intact, err := isIntact(ctx, local, f, m)
	if err != nil {
		return Repaired{}, err
	}
	note := "fetched from " + found.Label.Namespace
	if intact {
		pull.OnlyMeta, note = true, "it is intact: its manifest was added"
	}
	if path := local.Paths(f.Digest).Image; !intact && fileExists(path) {
		pull.remnant = path
	}
	if err := fetchInto(ctx, local, lock, found, m, pull); err != nil {
		return Repaired{}, err
	}
	return Repaired{f, true, note}, nil
}

// isIntact tells whether an image without a manifest is what the manifest says.
func isIntact(ctx context.Context, local *localrepo.Repo, f localrepo.Finding, m image.Manifest) (bool, error) {
	if f.Condition != localrepo.Unverifiable || f.Size != m.Layer.Size {
		return false, nil
	}
	d, err := localrepo.HashFile(ctx, local.Paths(f.Digest).Image, nil)
	return d == m.Layer.Digest, err
}

// findDigest looks for an image under any of its labels. It is of kind NotFound
// if no namespace has it.
func findDigest(ctx context.Context, reg *registry.Registry, d digest.Digest, labels []label.Label, o RepairOptions) (Found, error) {
	for _, namespace := range o.Namespaces {
		for _, l := range labels {
			l.Namespace = namespace
			if o.Open != nil {
				var err error
				if reg, err = o.Open(l); err != nil {
					return Found{}, err
				}
			}
			repo, err := reg.Repository(l.Repository())
			if err != nil {
				return Found{}, err
			}
			desc, err := repo.Resolve(ctx, d.String())
			switch {
			case err == nil:
				return Found{Label: l, Repo: repo, Descriptor: desc}, nil
			case fault.KindOf(err) != fault.NotFound:
				return Found{}, err
			}
		}
	}
	return Found{}, fault.New(fault.NotFound, "image %s is in no namespace of %s", label.ID(d), reg)
}
