package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/evidence"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/mount"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/sandbox"
)

// TestOptions say which image is tested, how, and where the results go.
type TestOptions struct {
	Image  Runnable
	Attach *Found // the image in a registry that gets the results; nil for none

	// Run says how; what follows from the image is filled in here.
	Run       evidence.Options
	Methods   []mount.Method
	NoSandbox bool   // run the image's own test program on the bare machine
	WorkDir   string // for temporary files; "" is the system's
	Out       string // keep the results in this directory too; "" for not
	Events    event.Sink
}

// Tested is what testing an image showed.
type Tested struct {
	Verdict  meta.Verdict    `json:"verdict"`
	Attached digest.Digest   `json:"attached,omitempty"` // manifest of the results
	Method   mount.Method    `json:"mounted_by"`
	Attempts []mount.Attempt `json:"mount_attempts"`
}

// Test mounts an image, runs its tests and attaches the results, good or bad.
// The error has kind TestsFailed or Untested if the verdict does not allow a
// promotion.
func Test(ctx context.Context, o TestOptions) (tested Tested, err error) {
	scratch, err := os.MkdirTemp(o.WorkDir, "uenv-ci-test-")
	if err != nil {
		return tested, fmt.Errorf("test: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	extra, err := extractExtra(o.Image.Path, scratch)
	if err != nil {
		return tested, err
	}
	mounted, err := o.Image.Mount(ctx, MountOptions{MountPoint: o.Run.MountPoint, Methods: o.Methods, WorkDir: o.WorkDir, Events: o.Events})
	if err != nil {
		return tested, err
	}
	defer func() { err = errors.Join(err, mounted.Close()) }()
	tested.Method, tested.Attempts = mounted.Method(), mounted.Attempts()
	run := o.evidence(ctx, mounted, extra, filepath.Join(scratch, "run"))
	if err := os.Mkdir(run.Scratch, 0o700); err != nil {
		return tested, fmt.Errorf("test: %w", err)
	}
	result, err := evidence.Run(ctx, run)
	if err != nil {
		return tested, err
	}
	tested.Verdict = result.Verdict
	if err := o.keep(result.Dir); err != nil {
		return tested, err
	}
	if o.Attach != nil {
		if tested.Attached, err = attachResults(ctx, *o.Attach, result); err != nil {
			return tested, err
		}
	}
	return tested, result.Err()
}

func (o TestOptions) evidence(ctx context.Context, m *mount.Mount, extra, scratch string) evidence.Options {
	run := o.Run
	run.Env, run.Extra, run.ImageFile, run.Scratch, run.Events = o.Image.Env, extra, o.Image.Path, scratch, o.Events
	run.MountPoint = m.MountPoint()
	run.Mounted = testbed{mount: m, scratch: scratch, extra: extra, boxed: !o.NoSandbox && sandbox.Available(ctx) == nil}
	if o.Attach != nil {
		run.Image = meta.Subject{Label: o.Attach.Label.String(), Digest: o.Attach.Descriptor.Digest}
	}
	if run.Now == nil {
		run.Now = time.Now
	}
	return run
}

func (o TestOptions) keep(dir string) error {
	if o.Out == "" {
		return nil
	}
	if err := os.CopyFS(o.Out, os.DirFS(dir)); err != nil {
		return fmt.Errorf("keep the results: %w", err)
	}
	return nil
}

// testbed runs an image's own test program in a sandbox with the image. A site's
// ReFrame suite runs as its user: it submits jobs and needs what the user has.
type testbed struct {
	mount          *mount.Mount
	scratch, extra string
	boxed          bool
}

// Command implements evidence.Mounted.
func (b testbed) Command(c proc.Cmd) (proc.Cmd, error) {
	inImage := b.extra != "" && filepath.Dir(c.Path) == b.extra
	if !b.boxed || !inImage {
		return b.mount.Command(c)
	}
	return b.mount.Sandboxed(sandbox.Spec{
		Network: true,
		Binds:   []sandbox.Bind{{Source: b.scratch, Target: b.scratch, Writable: true}, {Source: b.extra, Target: b.extra}},
	}, c)
}

// extractExtra copies an image's meta/extra out of it; the result is "" if it
// has none.
func extractExtra(path, scratch string) (string, error) {
	extra, err := image.Extra(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer extra.Close()
	dir := filepath.Join(scratch, "extra")
	if err := os.CopyFS(dir, extra); err != nil {
		return "", fmt.Errorf("read meta/extra of %s: %w", path, err)
	}
	return dir, nil
}

func attachResults(ctx context.Context, found Found, result evidence.Result) (digest.Digest, error) {
	when := result.Verdict.When.Time
	layer, err := registry.DirectoryLayer(meta.ReframeTitle, os.DirFS(result.Dir), when)
	if err != nil {
		return "", fmt.Errorf("pack the results: %w", err)
	}
	desc, err := image.Attach(ctx, found.Repo, found.Descriptor, image.Attachment{
		Type: meta.TypeReframe, Layers: []registry.Layer{layer}, Created: when, Annotations: result.Verdict.Annotations(),
	})
	return desc.Digest, err
}
