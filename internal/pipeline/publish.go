package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/registry"
)

// keepUnpublished saves the image that could not be published from the directory
// that is about to be removed.
func (b *imageBuild) keepUnpublished() error {
	if b.Out != "" || b.Unpublished == "" {
		return nil
	}
	from := b.done.Image.Path
	why := moveFile(from, b.Unpublished)
	if why == nil {
		b.done.Image.Path = b.Unpublished
		return nil
	}
	// There is room where the image is: nothing is copied there.
	dir, err := os.MkdirTemp("", "uenv-ci-unpublished-")
	if err == nil {
		to := filepath.Join(dir, filepath.Base(b.Unpublished))
		if err = os.Rename(from, to); err == nil {
			b.done.Image.Path = to
			b.Pack.Events.Warn("publish", "the image is in %s: %v", to, why)
			return nil
		}
		err = errors.Join(err, os.Remove(dir))
	}
	return fmt.Errorf("keep the image: %w", errors.Join(why, err))
}

// moveFile moves a file, also to another file system.
func moveFile(from, to string) error {
	if os.Rename(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	err = atomicfile.Write(to, 0o644, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
	if err != nil {
		return err
	}
	return os.Remove(from)
}

// PublishOptions say how an image is published that was built before.
type PublishOptions struct {
	Label  label.Label
	Report BuildReport // of the build
	// PerChange keeps the image's key apart, as KeyOptions.PerChange does. An image
	// of a build that was not of a protected ref is always kept apart.
	PerChange  bool
	Restricted bool
	Events     event.Sink
}

// PublishBuilt publishes an image file with all that a build would have published
// with it. The file has to be the one that the report is of.
func PublishBuilt(ctx context.Context, to *registry.Registry, file string, o PublishOptions) (BuildReport, error) {
	r := o.Report
	found, err := image.Stat(ctx, file)
	if err != nil {
		return r, err
	}
	was := r.Label
	switch {
	case r.Image.Digest == "" || found.Digest != r.Image.Digest:
		return r, fault.New(fault.Invalid, "%s is not the image of the report: its digest is %s, not %s", file, found.Digest, or(r.Image.Digest, "that of a build that failed"))
	case was.Name != o.Label.Name || was.Version != o.Label.Version || was.System != o.Label.System || was.UArch != o.Label.UArch:
		return r, fault.New(fault.Invalid, "the report is of %s, not of %s", was, o.Label)
	case r.Reproducible != nil && !r.Reproducible.Same:
		o.Events.Warn("publish", "the image was found not to be reproducible")
	}
	created, err := time.Parse(time.RFC3339, r.Inputs.Created)
	if err != nil {
		return r, fault.Wrap(fault.Invalid, err, "the report: creation time")
	}
	r.Label, r.Image.Path, r.Attached, r.Error = o.Label, file, nil, ""
	perChange := o.PerChange || !r.Inputs.Protected
	b := &imageBuild{
		BuildImageOptions: BuildImageOptions{
			Build: BuildOptions{Options: build.Options{Restricted: o.Restricted || r.Inputs.Restricted}},
			Push:  to, Pack: image.PackOptions{Created: created, Events: o.Events},
		},
		keys: keyStore{to, o.Label, perChange, o.Events}, done: r,
	}
	err = b.publish(ctx)
	return b.done, err
}

func or(d digest.Digest, text string) string {
	if d == "" {
		return text
	}
	return d.String()
}
