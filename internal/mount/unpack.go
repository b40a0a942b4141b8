package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/squashfs"
)

// startUnpacked copies the content into a private directory. Without bubblewrap
// the mount point becomes a link to it.
func (m *Mount) startUnpacked(ctx context.Context, r Request) error {
	var err error
	if m.work, err = newWorkDir(r.WorkDir, r.Events); err != nil {
		return err
	}
	m.source, m.boxed = m.work.content(), bubblewrap(ctx)
	if m.boxed {
		err = m.work.makePoint(m.point, false)
	} else {
		err = m.work.link(m.point)
	}
	if err != nil {
		return err
	}
	img, err := squashfs.Open(m.image)
	if err != nil {
		return err
	}
	err = squashfs.Unpack(ctx, img, m.source, squashfs.UnpackOptions{Events: r.Events})
	return errors.Join(err, img.Close())
}

// link makes the mount point a link to the content.
func (w *workDir) link(point string) error {
	if err := w.makePoint(filepath.Dir(point), true); err != nil {
		return err
	}
	if err := w.note(point); err != nil {
		return err
	}
	if err := os.Symlink(w.content(), point); err != nil {
		return fmt.Errorf("without bubblewrap the mount point must be one that can be made: %w", err)
	}
	return nil
}
