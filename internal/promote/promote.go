// Package promote decides by rules whether an image may move to the namespace
// that users see, and moves it: the same digest under a new name, with everything
// that is attached to it and a record of who let it through and why.
package promote

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// Request says what to promote, where to and by which rules.
type Request struct {
	Image  ocispec.Descriptor // its manifest
	From   label.Label        // under which it was found
	Source *registry.Repository
	To     label.Label // complete: the name that users will see
	Target *registry.Repository

	Rules     Rules
	Overrides map[string]string // rules to let it through against, each with the reason
	Who       string
	Tool      string           // name and version of this program
	Now       func() time.Time // nil is time.Now
	Events    event.Sink

	copies bool // if the rules let it through
}

// Result is what a promotion did.
type Result struct {
	Decision
	Copy   registry.CopyReport `json:"copy"`
	Record meta.Promotion      `json:"record"`
	// Already is set if the image had been promoted to this name before: only what has
	// been attached at its source since then was copied.
	Already bool `json:"already"`
}

const stage = "promote"

// Apply decides and, if every rule lets the image through, copies it with all its
// referrers, attaches the record, and sets the tag last. A refusal has kind
// Refused and leaves nothing behind. Doing it again is safe, whether it had
// succeeded before or stopped halfway.
func Apply(ctx context.Context, r Request) (Result, error) {
	r.copies = true
	d, err := Decide(ctx, r)
	if err != nil {
		return Result{Decision: d}, err
	}
	if err := d.Refusal(r.From); err != nil {
		return Result{Decision: d}, err
	}
	r.Events.Start(stage, "%s to %s", r.From, r.To)
	out, err := r.apply(ctx, d)
	if err != nil {
		err = fmt.Errorf("promote %s to %s: %w", r.From, r.To, err)
		r.Events.Failed(stage, err)
		return out, err
	}
	r.Events.Done(stage, "%s is %s", r.To, r.Image.Digest)
	return out, nil
}

func (r Request) apply(ctx context.Context, d Decision) (Result, error) {
	out := Result{Decision: d, Record: r.record(d)}
	tagged := d.occupant == r.Image.Digest
	before, recorded, err := r.recorded(ctx, d.attached.in(r.Target), r.Image)
	if err != nil {
		return out, err
	}
	if recorded && tagged {
		out.Record, out.Already = before, true
		return out, r.catchUp(ctx, d, &out)
	}
	// A digest is kept by a tag of its own before users find it, and for as long as
	// they may have it: some registries drop it with its last tag.
	if d.occupant != "" && !tagged {
		if err := keep(ctx, r.Target, d.occupant); err != nil {
			return out, err
		}
	}
	options := registry.CopyOptions{Tag: registry.KeepTag(r.Image.Digest)}
	if options.Listed, err = d.attached.list(ctx, r.Source, r.Image); err != nil {
		return out, err
	}
	resumed := false
	if recorded && !tagged {
		if resumed, err = r.resumes(ctx, d, before, out.Record); err != nil {
			return out, err
		}
	}
	if resumed {
		out.Record = before
	} else if options.Attach, err = r.artifacts(out.Record); err != nil {
		return out, err
	}
	out.Copy, err = registry.Copy(ctx, r.Source, r.Image, r.Target, options)
	if err != nil {
		return out, err
	}
	if tagged {
		return out, nil
	}
	return out, r.tag(ctx, d.occupant)
}

// catchUp brings what was attached to the image at its source since it was
// promoted: results accumulate, wherever they were made.
func (r Request) catchUp(ctx context.Context, d Decision, out *Result) error {
	lacks, err := d.attached.lacks(ctx, r.Source, r.Target, r.Image)
	if err != nil || !lacks {
		return err
	}
	out.Copy, err = registry.Copy(ctx, r.Source, r.Image, r.Target, registry.CopyOptions{})
	return err
}

// recorded returns the newest record of the promotion of an image to the name.
func (r Request) recorded(ctx context.Context, attached meta.Source, image ocispec.Descriptor) (meta.Promotion, bool, error) {
	promotions, _, err := meta.Promotions(ctx, attached, image)
	if err != nil {
		return meta.Promotion{}, false, err
	}
	for _, p := range promotions {
		if p.To.Repository == r.Target.Name() && p.To.Tag == r.To.Tag {
			return p, true, nil
		}
	}
	return meta.Promotion{}, false, nil
}

// resumes tells whether the newest record is of a run that stopped before it set the
// tag: it says what this run would, but for the time, and the image that has the name
// was not promoted to it since.
func (r Request) resumes(ctx context.Context, d Decision, newest, own meta.Promotion) (bool, error) {
	same := newest.Who == own.Who && newest.From == own.From && newest.To == own.To && newest.Site == own.Site &&
		newest.Tool == own.Tool && slices.Equal(newest.Rules, own.Rules)
	if !same || d.occupant == "" {
		return same, nil
	}
	occupant, err := r.Target.Resolve(ctx, d.occupant.String())
	if err != nil {
		return false, err
	}
	since, ok, err := r.recorded(ctx, r.Target, occupant)
	return !ok || newest.When.After(since.When.Add(clockSkew)), err
}

func (r Request) record(d Decision) meta.Promotion {
	return meta.Promotion{
		Version: meta.PromotionVersion, When: meta.At(r.now()), Who: r.Who, Image: r.Image.Digest,
		From: d.From, To: d.To, Rules: d.Rules, Site: r.Rules.Site, Tool: r.Tool,
	}
}

// artifacts returns the record as what is attached to the image.
func (r Request) artifacts(p meta.Promotion) ([]registry.Artifact, error) {
	text, err := p.Encode()
	if err != nil {
		return nil, err
	}
	annotations := p.Annotations()
	annotations[ocispec.AnnotationCreated] = p.When.UTC().Format(time.RFC3339)
	subject := ocispec.Descriptor{MediaType: r.Image.MediaType, Digest: r.Image.Digest, Size: r.Image.Size}
	return []registry.Artifact{{
		Type: meta.TypePromotion, Subject: &subject, Annotations: annotations,
		Layers: []registry.Layer{registry.BytesLayer(meta.PromotionTitle, meta.MediaTypeJSON, text)},
	}}, nil
}

// tag sets the name that users find. Rules and copy took their time: what the name is
// now must be what it was when the rules were asked.
func (r Request) tag(ctx context.Context, occupant digest.Digest) error {
	before, err := r.Target.Resolve(ctx, r.To.Tag)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	if err == nil && before.Digest != occupant && before.Digest != r.Image.Digest {
		err := fault.New(fault.Refused, "%s has become another image in the meantime, %s", r.To, before.Digest)
		return fault.WithHint(err, "released names stay what they are: choose another tag")
	}
	return r.Target.Tag(ctx, r.Image, r.To.Tag)
}

func keep(ctx context.Context, repo *registry.Repository, d digest.Digest) error {
	desc, err := repo.Resolve(ctx, d.String())
	if err != nil {
		return err
	}
	return repo.Tag(ctx, desc, registry.KeepTag(d))
}

func (r Request) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// placeOf returns where a label of a repository is.
func placeOf(repo *registry.Repository, l label.Label) meta.Place {
	return meta.Place{Registry: strings.TrimSuffix(repo.String(), "/"+repo.Name()), Repository: repo.Name(), Tag: l.Tag}
}
