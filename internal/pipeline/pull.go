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
	Events   event.Sink
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
	if o.Force || !complete(paths, m, o.OnlyMeta) {
		if err := fetchInto(ctx, local, lock, found.Repo, m, o); err != nil {
			return Pulled{}, fmt.Errorf("pull %s: %w", found.Label, err)
		}
		pulled.Fetched = true
	}
	if _, err := os.Stat(paths.Image); errors.Is(err, fs.ErrNotExist) {
		pulled.Path = ""
	}
	return pulled, local.Add(ctx, recordOf(found, m))
}

// complete tells whether what m names is in the repository. The size is compared
// because other clients leave part of a file under its final name when killed.
func complete(paths localrepo.Paths, m image.Manifest, onlyMeta bool) bool {
	if onlyMeta {
		_, err := os.Stat(paths.Meta)
		return err == nil
	}
	info, err := os.Stat(paths.Image)
	return err == nil && info.Size() == m.Layer.Size
}

func fetchInto(ctx context.Context, local *localrepo.Repo, lock *localrepo.Lock, repo *registry.Repository, m image.Manifest, o PullOptions) error {
	stage, err := local.Stage(lock)
	if err != nil {
		return err
	}
	defer stage.Abort()
	layer, err := image.MetaOf(ctx, repo, m.Descriptor)
	switch {
	case fault.KindOf(err) == fault.NotFound && !o.OnlyMeta:
		o.Events.Warn("pull", "the image has no metadata attached: clients may need an explicit mount point for it")
	case err != nil:
		return err
	default:
		if err := registry.UnpackLayer(ctx, repo, layer, stage.Dir(), registry.UnpackLimits{}); err != nil {
			return fmt.Errorf("unpack metadata: %w", err)
		}
	}
	content := localrepo.Content{Manifest: m.Raw}
	if !o.OnlyMeta {
		if err := image.Fetch(ctx, repo, m, stage.Image(), o.Events); err != nil {
			return err
		}
		content.Verified = m.Layer.Digest
	}
	return stage.Commit(ctx, content)
}

func recordOf(found Found, m image.Manifest) localrepo.Record {
	l := found.Label
	l.Namespace = ""
	created, err := time.Parse(time.RFC3339, m.Created)
	if err != nil {
		created = time.Now()
	}
	return localrepo.Record{
		Label: l, Digest: m.Descriptor.Digest, ID: localrepo.ID(m.Descriptor.Digest), Date: created.UTC(), Size: m.Layer.Size,
	}
}
