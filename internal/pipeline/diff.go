package pipeline

import (
	"context"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/localrepo"
)

// Side is one of two images that are compared.
type Side struct {
	Name     string        `json:"name"`             // label or path
	Digest   digest.Digest `json:"digest,omitempty"` // "" for a loose file
	contents catalog.Contents
}

// RegistrySide reads what is in an image of a registry, without downloading it.
func RegistrySide(ctx context.Context, found Found) (Side, error) {
	c, err := catalog.ReadContents(ctx, found.Repo, found.Descriptor)
	return Side{found.Label.String(), found.Descriptor.Digest, c}, err
}

// LocalSide reads what is in an image of a local repository.
func LocalSide(local *localrepo.Repo, r localrepo.Record) (Side, error) {
	image, err := LocalRunnable(local, r)
	if err != nil {
		return Side{}, err
	}
	c, err := catalog.FileContents(image.Path)
	if c.Env == nil {
		c.Env = &image.Env
	}
	return Side{r.Label.String(), r.Digest, c}, err
}

// FileSide reads what is in an image file.
func FileSide(path string) (Side, error) {
	c, err := catalog.FileContents(path)
	return Side{Name: path, contents: c}, err
}

// Diff is what changed between two images.
type Diff struct {
	From Side `json:"from"`
	To   Side `json:"to"`
	catalog.Difference
}

// Compare tells what changed from one image to another.
func Compare(from, to Side) (Diff, error) {
	d := Diff{from, to, catalog.Compare(from.contents, to.contents)}
	if d.Unknown && from.contents.Env == nil && to.contents.Env == nil {
		return d, fault.New(fault.NotFound, "neither %s nor %s tells what is in it", from.Name, to.Name)
	}
	return d, nil
}
