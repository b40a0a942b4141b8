package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/mount"
)

// Runnable is an image on disk that can be mounted.
type Runnable struct {
	Path  string
	Env   meta.Env // empty if the image has no metadata
	Label string   // "" for a loose file
	// Repo and Identity say where a local repository has the image; Repo is ""
	// for a loose file.
	Repo     string
	Identity digest.Digest
	// Digest of the file, to be checked before it is mounted; "" if nothing says
	// what it should be.
	Digest digest.Digest
}

// LocalRunnable returns the image of a record in the local repository.
func LocalRunnable(repo *localrepo.Repo, r localrepo.Record) (Runnable, error) {
	paths := repo.Paths(r.Digest)
	if _, err := os.Stat(paths.Image); errors.Is(err, fs.ErrNotExist) {
		err := fault.New(fault.NotFound, "%s: only its metadata is in the local repository", r.Label)
		return Runnable{}, fault.WithHint(err, "'uenv-ci pull %s' fetches the image", r.Label)
	}
	env, err := readEnvFile(filepath.Join(paths.Meta, "env.json"))
	if errors.Is(err, fs.ErrNotExist) {
		env, err = image.Env(paths.Image)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Runnable{}, err
	}
	file, err := repo.FileDigest(r.Digest)
	if err != nil && fault.KindOf(err) != fault.NotFound { // as with images that the uenv client pulled
		return Runnable{}, err
	}
	return Runnable{Path: paths.Image, Env: env, Label: r.Label.String(), Repo: repo.Dir(), Identity: r.Digest, Digest: file}, nil
}

// LocalEnv returns the metadata of a record of which nothing else need be in the
// local repository.
func LocalEnv(repo *localrepo.Repo, r localrepo.Record) (meta.Env, error) {
	return readEnvFile(filepath.Join(repo.Paths(r.Digest).Meta, "env.json"))
}

// Verify checks the file for those who do not mount it by Mount.
func (r Runnable) Verify(ctx context.Context, events event.Sink) error {
	if r.Digest == "" {
		return nil
	}
	return mount.Verify(ctx, r.Path, r.Digest, events)
}

// FileRunnable returns the image in a file. Metadata beside it goes before that
// inside, as with the uenv client; where it is of no use, that is told.
func FileRunnable(path string, events event.Sink) (Runnable, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return Runnable{}, err
	}
	env, err := image.Env(absolute)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Runnable{}, err
	}
	beside, besideErr := readEnvFile(filepath.Join(filepath.Dir(absolute), meta.EnvFile))
	switch {
	case besideErr == nil:
		env = beside
	case !errors.Is(besideErr, fs.ErrNotExist) && !errors.Is(besideErr, syscall.ENOTDIR):
		events.Warn("metadata", "the metadata beside the image is not used: %v", besideErr)
	}
	return Runnable{Path: absolute, Env: env}, nil
}

func readEnvFile(path string) (meta.Env, error) {
	data, err := bounded.ReadFile(path, maxEnv)
	if err != nil {
		return meta.Env{}, fmt.Errorf("read %s: %w", path, err)
	}
	env, err := meta.ParseEnv(data)
	return env, fault.Wrap(fault.Invalid, err, "read %s", path)
}

// maxEnv bounds an env.json that is read, in bytes.
const maxEnv = 16 << 20

// MountOptions say how an image is made to appear.
type MountOptions struct {
	MountPoint string // "" is where the image wants to be
	Methods    []mount.Method
	Server     []string // as in mount.Request
	WorkDir    string   // for private directories; "" is the system's temporary one
	Events     event.Sink
}

// Mount makes the image's content appear at its mount point for commands that
// are wrapped by the result.
func (r Runnable) Mount(ctx context.Context, o MountOptions) (*mount.Mount, error) {
	at := o.MountPoint
	if at == "" {
		at = r.Env.Mount
	}
	if at == "" {
		err := fault.New(fault.Usage, "%s does not say where it is to be mounted", r.Path)
		return nil, fault.WithHint(err, "give a mount point with --mount")
	}
	m, err := mount.At(ctx, mount.Request{
		Image: r.Path, MountPoint: at, Declared: r.Env.Mount, Digest: r.Digest, Methods: o.Methods, Server: o.Server, WorkDir: o.WorkDir, Events: o.Events,
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// ChooseViews returns the views to load: those asked for, else the image's
// default view if that is wanted.
func (r Runnable) ChooseViews(asked []string, useDefault bool) []string {
	if len(asked) == 0 && useDefault && r.Env.DefaultView != "" {
		return []string{r.Env.DefaultView}
	}
	return asked
}

// Environ returns environ as it is inside the views.
func (r Runnable) Environ(environ, views []string) ([]string, error) {
	applied, err := r.Env.Apply(views, environ)
	if err != nil {
		return nil, fault.New(fault.Usage, "%w", err)
	}
	return applied, nil
}
