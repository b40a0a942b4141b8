package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/squashfs"
)

const (
	extraDir = "meta/extra" // holds what a recipe says about testing the image
	maxExtra = 1 << 30      // bytes of it
)

// UnpackExtra writes the content of an image file's meta/extra into the directory
// dst, which must not exist or be empty. Links that lead out of it, or to
// nothing, are left out. Without a meta/extra the error wraps fs.ErrNotExist.
func UnpackExtra(ctx context.Context, path, dst string) error {
	img, err := open(path)
	if err != nil {
		return err
	}
	err = squashfs.Unpack(ctx, img, dst, squashfs.UnpackOptions{From: extraDir, MaxBytes: maxExtra})
	err = errors.Join(err, img.Close())
	if err == nil {
		err = removeOutwardLinks(dst)
	}
	if err != nil {
		return fmt.Errorf("read %s of %s: %w", extraDir, path, err)
	}
	return nil
}

// removeOutwardLinks removes the links that cannot be followed inside dir: those
// who read it might follow them to files of ours.
func removeOutwardLinks(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		if _, err := root.Stat(path); err == nil {
			return nil
		}
		if err := root.Chmod(filepath.Dir(path), 0o700); err != nil { // it may be read-only
			return err
		}
		return root.Remove(path)
	})
}
