// Package lifecycle says which images users should leave, and what for. It only
// adds records to an image, never takes one away: the newest holds.
package lifecycle

import (
	"context"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// State is what the records of an image say.
type State struct {
	// Deprecation is the record that holds; nil if the image is not deprecated.
	Deprecation *meta.Deprecation `json:"deprecation,omitempty"`
	// History are all records, newest first.
	History []meta.Deprecation `json:"history,omitempty"`
	// Problems tell of records that cannot be read, any of which might be the one
	// that holds. They stop nobody: records are never taken away.
	Problems []string `json:"problems,omitempty"`
}

// Status reads the records of an image.
func Status(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) (State, error) {
	records, problems, err := meta.Deprecations(ctx, repo, image)
	if err != nil {
		return State{}, err
	}
	s := State{History: records, Problems: problems}
	if len(records) > 0 && records[0].State == meta.Active {
		s.Deprecation = &records[0]
	}
	return s, nil
}

// Note is what a person says about an image.
type Note struct {
	Who         string
	Reason      string
	Replacement string     // a label; "" for none
	Until       *meta.Date // the last day of support; nil if nothing is said
	When        time.Time
}

// Deprecate adds a record that users should leave the image. Saying again what
// holds already adds nothing.
func Deprecate(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, n Note) (meta.Deprecation, error) {
	d := n.record(meta.Active, image)
	status, err := Status(ctx, repo, image)
	if err != nil {
		return d, err
	}
	if now := status.Deprecation; now != nil && now.Reason == d.Reason && now.Replacement == d.Replacement && sameDay(now.Until, d.Until) {
		return *now, nil
	}
	return add(ctx, repo, image, d, status)
}

// Undeprecate takes the deprecation of an image back. One that is not
// deprecated has kind NotFound.
func Undeprecate(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, n Note) (meta.Deprecation, error) {
	d := n.record(meta.Withdrawn, image)
	status, err := Status(ctx, repo, image)
	if err != nil {
		return d, err
	}
	if status.Deprecation == nil {
		return d, fault.New(fault.NotFound, "%s@%s is not deprecated", repo.Name(), image.Digest)
	}
	return add(ctx, repo, image, d, status)
}

func (n Note) record(state string, image ocispec.Descriptor) meta.Deprecation {
	return meta.Deprecation{
		Version: meta.DeprecationVersion, State: state, When: meta.At(n.When), Who: n.Who, Image: image.Digest,
		Reason: n.Reason, Replacement: n.Replacement, Until: n.Until,
	}
}

func sameDay(a, b *meta.Date) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.String() == b.String()
}

// add attaches a record and returns it. It is newer than those before, also when
// the clock went backwards since they were written.
func add(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor, d meta.Deprecation, before State) (meta.Deprecation, error) {
	if len(before.History) > 0 && !d.When.After(before.History[0].When.Time) {
		d.When = meta.At(before.History[0].When.Add(time.Microsecond))
	}
	data, err := d.Encode()
	if err != nil {
		return d, err
	}
	annotations := d.Annotations()
	annotations[ocispec.AnnotationCreated] = d.When.UTC().Format(time.RFC3339)
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	_, err = repo.Push(ctx, registry.Artifact{
		Type: meta.TypeDeprecation, Subject: &subject, Annotations: annotations,
		Layers: []registry.Layer{registry.BytesLayer(meta.DeprecationTitle, meta.MediaTypeJSON, data)},
	})
	if err != nil {
		return d, fmt.Errorf("attach %s record: %w", d.State, err)
	}
	return d, nil
}
