package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// tree is a directory that holds one OCI image layout per repository path.
type tree struct {
	dir string // absolute

	once sync.Once // opens root when it is first needed
	root *os.Root
	err  error
}

func openTree(dir string, mustExist bool) (*tree, error) {
	if dir == "" {
		return nil, fault.New(fault.Usage, "the registry address \"oci:\" lacks a directory")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open layout tree %s: %w", dir, err)
	}
	if _, err := os.Stat(abs); mustExist && errors.Is(err, fs.ErrNotExist) {
		err := fault.New(fault.NotFound, "there is no registry oci:%s: the directory does not exist", abs)
		return nil, fault.WithHint(err, "'push' makes one")
	}
	return &tree{dir: abs}, nil
}

func (t *tree) String() string { return "oci:" + t.dir }

func (t *tree) repository(path string) store { return &layout{tree: t, path: filepath.FromSlash(path)} }

// open returns the root of the tree; it is closed when the tree is collected.
// A directory that does not exist yet has kind NotFound, unless create is set.
func (t *tree) open(create bool) (*os.Root, error) {
	if create {
		if err := os.MkdirAll(t.dir, 0o777); err != nil {
			return nil, fmt.Errorf("create layout tree: %w", err)
		}
	} else if _, err := os.Stat(t.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "%s does not exist", t.dir)
	}
	t.once.Do(func() { t.root, t.err = os.OpenRoot(t.dir) })
	if t.err != nil {
		return nil, fmt.Errorf("open layout tree: %w", t.err)
	}
	return t.root, nil
}

// repositories finds the layouts of the tree. Links are not followed.
func (t *tree) repositories(ctx context.Context) ([]string, error) {
	root, err := t.open(false)
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []string
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ended(ctx)
		case err != nil:
			return err
		case e.IsDir() && isLayoutPart(root, name):
			return fs.SkipDir
		case e.Name() == ocispec.ImageLayoutFile && !e.IsDir() && strings.Contains(name, "/"):
			found = append(found, path.Dir(name))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list layouts of %s: %w", t.dir, err)
	}
	return found, nil
}

// isLayoutPart tells whether a directory is the one of a layout that holds no
// repositories, and not of a uenv with its name.
func isLayoutPart(root *os.Root, dir string) bool {
	if path.Base(dir) != ocispec.ImageBlobsDir {
		return false
	}
	info, err := root.Lstat(path.Join(path.Dir(dir), ocispec.ImageLayoutFile))
	return err == nil && info.Mode().IsRegular()
}
