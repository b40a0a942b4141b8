package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/scratch"
	"uenv-ci.dev/internal/stack"
)

// BuildImageOptions say how an image is built, packed and published.
type BuildImageOptions struct {
	Build      BuildOptions
	Pack       image.PackOptions
	Out        string             // the image file; "" keeps none
	Push       *registry.Registry // nil: not pushed
	Key        KeyOptions
	Versions   map[string]string // of this program, by name
	Invocation string            // names this run, such as the URL of the CI job
	// ReportFile receives the build report, "" for none. ReportAlways is set to write
	// it also if it did not come to building anything.
	ReportFile   string
	ReportAlways bool
	// Unpublished is where the image is kept that was built and could not be
	// published, if Out keeps none; "" keeps none either.
	Unpublished string
	// Verify builds twice, and is an error if files differ.
	Verify bool
}

// BuildImage builds a recipe, packs the store and publishes the image if asked. An image
// that the registry already has, by content key, is not built again but gets the label.
// The store is removed before it returns. With an error, the report says how far it got.
func BuildImage(ctx context.Context, l label.Label, o BuildImageOptions) (BuildReport, error) {
	b := &imageBuild{BuildImageOptions: o, keys: keyStore{o.Push, l, o.Key.PerChange, o.Pack.Events}}
	b.done = BuildReport{
		Version: BuildReportVersion, Label: l, Started: meta.At(time.Now()), Builder: o.Versions, Host: host(), Invocation: o.Invocation,
	}
	err := b.run(ctx)
	return b.done, errors.Join(err, b.report(err))
}

// report writes down how far it came.
func (b *imageBuild) report(failed error) error {
	if failed != nil {
		b.done.Error = failed.Error()
	}
	b.done.Finished = meta.At(time.Now())
	b.done.Seconds = b.done.Finished.Sub(b.done.Started.Time).Seconds()
	begun := !b.done.Report.Started.IsZero() || b.done.Existing != ""
	if b.ReportFile == "" || !begun && !b.ReportAlways {
		return nil
	}
	return b.done.Write(b.ReportFile)
}

// imageBuild is the making of one image.
type imageBuild struct {
	BuildImageOptions
	in   stack.Input
	keys keyStore
	done BuildReport

	first map[string]fileState // of the store, if it is built twice
}

func (b *imageBuild) run(ctx context.Context) (err error) {
	if err := b.checkFiles(); err != nil {
		return err
	}
	if b.in, err = b.Build.Load(ctx); err != nil {
		return err
	}
	if b.done.ContentKey, err = keyOf(ctx, b.in, b.Build.UArch, b.Pack, b.Key, b.Pack.Events); err != nil {
		return err
	}
	if b.Build.Engine == build.EngineStackinator && b.done.Key != "" {
		b.done.Key, b.done.Unresolved = "", []string{"engine: stackinator's own version is not part of a key"}
	}
	if b.done.Inputs, err = b.inputs(ctx); err != nil {
		return err
	}
	if b.Push != nil && b.done.Key != "" && !b.Key.Rebuild && !b.Verify {
		found, err := b.keys.find(ctx, b.done.Key)
		if err != nil {
			return err
		}
		if found != nil {
			return b.reuse(ctx, found)
		}
	}
	out, remove, err := b.file()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if err := b.make(ctx, out); err != nil {
		return err
	}
	if b.Verify {
		err = b.verify(ctx)
	}
	if err == nil && b.Push != nil {
		err = b.publish(ctx)
	}
	if err != nil && b.Push != nil && b.done.Pushed == nil {
		err = errors.Join(err, b.keepUnpublished())
	}
	return err
}

// checkFiles checks before the build, which may take hours, that its results can be
// written.
func (b *imageBuild) checkFiles() error {
	var err error
	for _, path := range nonEmpty(b.ReportFile, b.Out) {
		if failed := atomicfile.Check(path); failed != nil {
			err = fmt.Errorf("build %s: %w", b.done.Label, failed)
			if path == b.ReportFile {
				b.ReportFile = "" // there is no place to tell of it
			}
		}
	}
	return err
}

// file returns where to pack the image, and how to remove it if it is only needed for
// publishing.
func (b *imageBuild) file() (path string, remove func() error, err error) {
	if b.Out != "" {
		return b.Out, func() error { return nil }, nil
	}
	work, err := scratch.New("", b.Build.Events)
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(work.Path(), meta.ImageTitle)
	remove = func() error {
		if b.done.Image.Path == path {
			b.done.Image.Path = ""
		}
		return work.Remove()
	}
	return path, remove, nil
}

// make builds the store and packs it.
func (b *imageBuild) make(ctx context.Context, out string) error {
	built, err := b.Build.run(ctx, b.in, &b.done.Report)
	if err != nil {
		return err
	}
	defer built.Close()
	if b.Verify {
		if b.first, err = listFiles(ctx, built.Store); err != nil {
			return err
		}
	}
	b.done.builtWith(built.Report.Spack, spackIsDirty(ctx, b.Build.Spack, built.Report.Spack))
	if b.done.Image, err = image.Pack(ctx, built.Store, out, b.Pack); err != nil {
		return err
	}
	return built.Close()
}

// publishStage is the name of the last stage of a build that publishes.
const publishStage = "publish"

// publish is the stage that publishes. If the registry or the network fails it is
// tried once more: what is there by then is not sent again.
func (b *imageBuild) publish(ctx context.Context) error {
	s, start := build.Stage{Name: publishStage}, time.Now()
	err := b.publishOnce(ctx)
	if err != nil && ctx.Err() == nil && fault.KindOf(err) == fault.Network {
		b.Pack.Events.Warn(publishStage, "%v", err)
		b.Pack.Events.Info(publishStage, "this may be temporary (network): trying again")
		s.Retried = true
		err = b.publishOnce(ctx)
	}
	s.Seconds, s.Failed = time.Since(start).Round(time.Millisecond).Seconds(), err != nil
	stages := slices.Clone(b.done.Report.Stages) // of an earlier try, if it is published later
	stages = slices.DeleteFunc(stages, func(s build.Stage) bool { return s.Name == publishStage })
	b.done.Report.Stages = append(stages, s)
	return err
}

// publishOnce puts the image into the registry with all that belongs to it, then its
// tag, then the tag of its key.
func (b *imageBuild) publishOnce(ctx context.Context) error {
	repo, err := b.Push.Repository(b.done.Label.Repository())
	if err != nil {
		return err
	}
	found := Found{Label: b.done.Label, Repo: repo}
	desc, err := image.Publish(ctx, repo, b.done.Image, image.PublishOptions{
		Created: b.Pack.Created, Key: b.done.Key, NoChunks: b.Build.Restricted, Events: b.Pack.Events,
		First: func(ctx context.Context, desc ocispec.Descriptor) error {
			found.Descriptor = desc
			return b.attach(ctx, found)
		},
	})
	if err != nil {
		return err
	}
	if err := repo.Tag(ctx, desc, b.done.Label.Tag); err != nil {
		return fmt.Errorf("tag %s:%s: %w", repo.Name(), b.done.Label.Tag, err)
	}
	b.done.Pushed = &desc
	if b.done.Key == "" {
		for _, reason := range b.done.Unresolved {
			b.Pack.Events.Warn("key", "the image has no content key: %s", reason)
		}
		return nil
	}
	// The image is published; without its key it would only be built again.
	if b.done.KeyTag, err = b.keys.record(ctx, b.done.Key, found); err != nil {
		if ctx.Err() != nil {
			return err
		}
		b.done.KeyTag = ""
		b.Pack.Events.Warn("key", "the image will not be found by its key: %v", err)
	}
	return nil
}

// reuse gives the label to an image that is there, copied with what is attached
// to it where its key is elsewhere.
func (b *imageBuild) reuse(ctx context.Context, found *keyedImage) error {
	repo, err := b.Push.Repository(b.done.Label.Repository())
	if err != nil {
		return err
	}
	b.done.Existing = found.repo.Name() + "@" + found.Descriptor.Digest.String()
	b.Pack.Events.Info("key", "not built: %s is the same image", b.done.Existing)
	if _, err := image.Copy(ctx, found.repo, found.Descriptor, repo, b.done.Label.Tag, time.Now()); err != nil {
		return fmt.Errorf("publish %s: %w", repo.Name(), err)
	}
	b.done.Pushed = &found.Descriptor
	b.done.Image = image.File{Digest: found.Layer.Digest, Size: found.Layer.Size, Mount: found.Mount}
	if b.Out == "" {
		return nil
	}
	b.done.Image.Path = b.Out
	return image.Fetch(ctx, found.repo, found.Manifest, b.Out, image.FetchOptions{Events: b.Pack.Events})
}
