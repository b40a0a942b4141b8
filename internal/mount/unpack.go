package mount

import (
	"context"
	"errors"

	"uenv-ci.dev/internal/scratch"
	"uenv-ci.dev/internal/squashfs"
)

// startUnpacked copies the content into a private directory. Without bubblewrap
// the mount point becomes a link to it.
func (m *Mount) startUnpacked(ctx context.Context, r Request) error {
	var err error
	if m.work, err = scratch.New(r.WorkDir, r.Events); err != nil {
		return err
	}
	m.source, m.boxed = m.work.Path(), bubblewrap(ctx)
	if m.boxed {
		err = makePoint(m.work, m.point, false)
	} else {
		err = linkPoint(m.work, m.point)
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
