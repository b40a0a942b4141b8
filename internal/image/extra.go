package image

import (
	"fmt"
	"io/fs"

	"uenv-ci.dev/internal/squashfs"
)

// extraDir holds what a recipe says about testing the image.
const extraDir = "meta/extra"

// ExtraFS is the directory meta/extra inside an image file, to be closed.
type ExtraFS struct {
	fs.FS
	img *squashfs.Image
}

// Close closes the image file.
func (e ExtraFS) Close() error { return e.img.Close() }

// Extra opens meta/extra inside an image file. Without one the error wraps
// fs.ErrNotExist.
func Extra(path string) (ExtraFS, error) {
	img, err := open(path)
	if err != nil {
		return ExtraFS{}, err
	}
	info, err := fs.Stat(img, extraDir)
	if err == nil && !info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		img.Close()
		return ExtraFS{}, fmt.Errorf("read %s: %w", extraDir, err)
	}
	sub, err := fs.Sub(img, extraDir)
	return ExtraFS{sub, img}, err
}
