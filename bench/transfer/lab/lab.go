// Package lab has what the benchmarks of transfers share: a registry with its
// files in memory, blobs to move, programs to run in turn, and medians.
package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

// Lab is a directory in memory and a registry that keeps its files there.
type Lab struct {
	Dir     string
	Address string // of the registry, HOST:PORT

	end func()
}

// New starts a registry, of the program that RegistryFlag names.
func New(ctx context.Context, program string) (*Lab, error) {
	dir, err := os.MkdirTemp("/dev/shm", "uenv-ci-bench-")
	if err != nil {
		return nil, err
	}
	l := &Lab{Dir: dir, end: func() {}}
	if err := l.start(ctx, program); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends the registry and removes the directory.
func (l *Lab) Close() {
	l.end()
	os.RemoveAll(l.Dir)
}

// Env is the environment of the program to be measured; the registry is reached
// at the given address.
func (l *Lab) Env(address string) []string {
	return append(os.Environ(), "UENV_CI_REGISTRY=http://"+address+"/uenv", "UENV_CI_SITE=", "HOME="+l.Dir,
		"XDG_CACHE_HOME="+filepath.Join(l.Dir, "cache"), "CLUSTER_NAME=", "SOURCE_DATE_EPOCH=1767225600")
}

// RandomFile writes size random bytes and returns their digest.
func (l *Lab) RandomFile(path string, size int64) (digest.Digest, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	hash := digest.Canonical.Digester()
	_, err = io.CopyN(io.MultiWriter(f, hash.Hash()), rand.Reader, size)
	return hash.Digest(), errors.Join(err, f.Close())
}

// Repository opens the repository of a label.
func (l *Lab) Repository(text string) (*registry.Repository, label.Label, error) {
	parsed, err := label.Parse(text)
	if err != nil {
		return nil, parsed, err
	}
	reg, err := registry.Open("http://"+l.Address+"/uenv", registry.Options{})
	if err != nil {
		return nil, parsed, err
	}
	repo, err := reg.Repository(parsed.Repository())
	return repo, parsed, err
}

// PushRandom publishes an image whose one layer is random bytes, with metadata,
// under a label, and returns the layer and the manifest.
func (l *Lab) PushRandom(ctx context.Context, text string, size int64) (layer, image ocispec.Descriptor, err error) {
	file := filepath.Join(l.Dir, "random")
	defer os.Remove(file)
	sum, err := l.RandomFile(file, size)
	if err != nil {
		return layer, image, err
	}
	repo, parsed, err := l.Repository(text)
	if err != nil {
		return layer, image, err
	}
	content := registry.FileLayer(file, meta.ImageTitle, sum, size)
	created := map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"}
	image, err = repo.Push(ctx, registry.Artifact{Type: meta.TypeImage, Layers: []registry.Layer{content}, Annotations: created})
	if err != nil {
		return layer, image, err
	}
	env := fstest.MapFS{meta.EnvFile[len(meta.MetaTitle)+1:]: {Data: []byte(`{"name":"random","mount":"/user-environment","views":{}}`)}}
	dir, err := registry.DirectoryLayer(meta.MetaTitle, env, time.Unix(1767225600, 0))
	if err == nil {
		_, err = repo.Push(ctx, registry.Artifact{Type: meta.TypeMeta, Subject: &image, Layers: []registry.Layer{dir}, Annotations: created})
	}
	if err == nil {
		err = repo.Tag(ctx, image, parsed.Tag)
	}
	return content.Descriptor, image, err
}

// CheckFile compares a file with the digest that it should have.
func CheckFile(path string, d ocispec.Descriptor) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := digest.FromReader(f)
	if err == nil && got != d.Digest {
		err = fmt.Errorf("%s is %s, not %s", path, got, d.Digest)
	}
	return err
}
