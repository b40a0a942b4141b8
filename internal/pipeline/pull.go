package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/lifecycle"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// PullOptions say how an image is pulled.
type PullOptions struct {
	Force    bool // fetch again what is there already
	OnlyMeta bool // record the label and fetch meta/, not the image
	Private  bool // nobody but the owner and the group may read it

	// NoDifference fetches the whole image, whatever local images have of it.
	NoDifference bool

	Cache       string // directory for what local images consist of; "" keeps nothing
	Connections int    // parts fetched at a time; 0 is as many as make it faster
	Limit       int64  // in bytes per second; 0 is none
	Events      event.Sink

	remnant  string    // a damaged file of the image itself, to start from
	assembly *Assembly // how the image is put together, if that was found out
}

// Pulled is an image in the local repository.
type Pulled struct {
	Label       label.Label       `json:"label"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"` // in bytes
	Path        string            `json:"path"` // of the image; "" with OnlyMeta
	Fetched     bool              `json:"fetched"`
	Deprecation *meta.Deprecation `json:"deprecation,omitempty"`
}

// Pull fetches an image and its metadata into the local repository and records
// its label there. What is there already is not fetched again.
func Pull(ctx context.Context, found Found, local *localrepo.Repo, o PullOptions) (Pulled, error) {
	m, err := image.Read(ctx, found.Repo, found.Descriptor)
	if err != nil {
		return Pulled{}, err
	}
	status, err := lifecycle.Status(ctx, found.Repo, found.Descriptor)
	if err != nil {
		return Pulled{}, fmt.Errorf("look for a deprecation: %w", err)
	}
	for _, problem := range status.Problems {
		o.Events.Warn("pull", "%s", problem)
	}
	lock, err := local.Lock(ctx, found.Descriptor.Digest)
	if err != nil {
		return Pulled{}, err
	}
	defer lock.Unlock()
	paths := local.Paths(found.Descriptor.Digest)
	pulled := Pulled{Label: found.Label, Digest: found.Descriptor.Digest, Size: m.Layer.Size, Path: paths.Image, Deprecation: status.Deprecation}
	if o.Force || !present(paths, m, o.OnlyMeta) {
		if err := fetchInto(ctx, local, lock, found, m, o); err != nil {
			return Pulled{}, fmt.Errorf("pull %s: %w", found.Label, err)
		}
		pulled.Fetched = true
	}
	if _, err := os.Stat(paths.Image); errors.Is(err, fs.ErrNotExist) {
		pulled.Path = ""
	}
	return pulled, local.Add(ctx, recordsOf(found, m)...)
}

// present tells whether what m names is in the repository. The size is compared
// because other clients leave part of a file under its final name when killed.
func present(paths localrepo.Paths, m image.Manifest, onlyMeta bool) bool {
	if onlyMeta {
		_, err := os.Stat(paths.Meta)
		return err == nil
	}
	info, err := os.Stat(paths.Image)
	return err == nil && info.Size() == m.Layer.Size
}

// filesOfPull is how many files and directories an image comes to at least.
const filesOfPull = 16

func fetchInto(ctx context.Context, local *localrepo.Repo, lock *localrepo.Lock, found Found, m image.Manifest, o PullOptions) error {
	stage, err := local.Stage(lock)
	if err != nil {
		return err
	}
	defer stage.Abort()
	if o.Private {
		if err := stage.Private(); err != nil {
			return err
		}
	}
	if o.Force || o.OnlyMeta {
		if err := stage.Reset(); err != nil {
			return err
		}
	}
	need := localrepo.Need{Files: filesOfPull}
	if !o.OnlyMeta {
		need.Bytes = m.Layer.Size - stage.Staged()
	}
	if err := local.CheckSpace(ctx, need); err != nil {
		return err
	}
	if err := unpackMeta(ctx, found.Repo, m, stage, o); err != nil {
		return local.Explain(ctx, err)
	}
	content := localrepo.Content{Manifest: m.Raw}
	if !o.OnlyMeta {
		if err := fetchImage(ctx, local, found, m, stage, lock, o); err != nil {
			return local.Explain(ctx, err)
		}
		content.Verified = m.Layer.Digest
	}
	return stage.Commit(ctx, content)
}

func unpackMeta(ctx context.Context, repo *registry.Repository, m image.Manifest, stage *localrepo.Stage, o PullOptions) error {
	layer, err := image.MetaOf(ctx, repo, m.Descriptor)
	if fault.KindOf(err) == fault.NotFound && !o.OnlyMeta {
		o.Events.Warn("pull", "the image has no metadata attached: clients may need an explicit mount point for it")
		return nil
	}
	if err != nil {
		return err
	}
	if err := registry.UnpackLayer(ctx, repo, layer, stage.Dir(), registry.UnpackLimits{}); err != nil {
		return fmt.Errorf("unpack metadata: %w", err)
	}
	return nil
}

// fetchImage downloads the image itself and tells other processes that wait for
// it how far it is.
func fetchImage(ctx context.Context, local *localrepo.Repo, found Found, m image.Manifest, stage *localrepo.Stage, lock *localrepo.Lock, o PullOptions) error {
	stage.Stripe(ctx)
	events := func(e event.Event) {
		if e.Kind == event.Progress && e.Stage == "pull" {
			lock.Report(e.Stage, e.Done, e.Total)
		}
		o.Events.Emit(e)
	}
	seeded := false
	if !o.NoDifference && !o.Force {
		seeding := o
		seeding.Events = events
		seeded = seedImage(ctx, found, m, local, stage.Image(), seeding)
	}
	fetch := image.FetchOptions{Connections: o.Connections, Limit: o.Limit, Events: events}
	err := image.Fetch(ctx, found.Repo, m, stage.Image(), fetch)
	if err != nil && seeded && ctx.Err() == nil && stage.Staged() == 0 { // what was put together was wrong, and is gone
		forgetMisfit(o)
		err = image.Fetch(ctx, found.Repo, m, stage.Image(), fetch)
	}
	if kind := fault.KindOf(err); kind == fault.Network || kind == fault.Interrupted || kind == fault.Unauthorized {
		stage.Keep()
	}
	return err
}

// recordsOf returns a record for each of the image's labels. A date that would break the
// repository for clients gives way to that of the pull.
func recordsOf(found Found, m image.Manifest) []localrepo.Record {
	created, err := time.Parse(time.RFC3339, m.Created)
	if err != nil || !label.ClientReads(created) {
		created = time.Now()
	}
	var records []localrepo.Record
	for _, l := range append([]label.Label{found.Label}, found.Also...) {
		l.Namespace = ""
		records = append(records, localrepo.Record{
			Label: l, Digest: m.Descriptor.Digest, ID: label.ID(m.Descriptor.Digest), Date: created.UTC(), Size: m.Layer.Size,
		})
	}
	return records
}
