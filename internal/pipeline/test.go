package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/evidence"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/mount"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/scratch"
	"uenv-ci.dev/internal/slurm"
)

// TestOptions say which image is tested, how, and where the results go.
type TestOptions struct {
	Image  Runnable
	Attach *Found // the image in a registry that gets the results; nil for none

	// Run says how; what follows from the image is filled in here.
	Run     evidence.Options
	Methods []mount.Method
	Server  []string // as in mount.Request
	WorkDir string   // for temporary files; "" is the system's
	Out     string   // keep the results in this directory too, which is empty or missing; "" for not
	Events  event.Sink

	Slurm *InSlurm // run the tests in a Slurm job; nil for here
}

// Check refuses what would go wrong only when the tests have run.
func (o TestOptions) Check() error {
	if o.Out == "" {
		return nil
	}
	entries, err := os.ReadDir(o.Out)
	if err == nil && len(entries) > 0 {
		return fault.New(fault.Usage, "keep the results in %s: the directory is not empty", o.Out)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(o.Out, 0o777)
	}
	if err != nil {
		return fault.New(fault.Usage, "keep the results: %w", err)
	}
	return nil
}

// Tested is what testing an image showed.
type Tested struct {
	Verdict  meta.Verdict    `json:"verdict"`
	Attached digest.Digest   `json:"attached,omitempty"` // manifest of the results
	Method   mount.Method    `json:"mounted_by"`
	Attempts []mount.Attempt `json:"mount_attempts"`
	Job      *slurm.Status   `json:"job,omitempty"` // in which the tests ran
}

// Test mounts an image, runs its tests and attaches the results, good or bad.
// The error has kind TestsFailed or Untested if the verdict does not allow a
// promotion.
func Test(ctx context.Context, o TestOptions) (tested Tested, err error) {
	if err := o.Check(); err != nil {
		return tested, err
	}
	if o.Slurm != nil {
		return o.testInJob(ctx)
	}
	work, err := scratch.New(o.WorkDir, o.Events)
	if err != nil {
		return tested, fmt.Errorf("test: %w", err)
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	mounted, err := o.Image.Mount(ctx, MountOptions{MountPoint: o.Run.MountPoint, Methods: o.Methods, Server: o.Server, WorkDir: o.WorkDir, Events: o.Events})
	if err != nil {
		return tested, err
	}
	defer func() { err = errors.Join(err, mounted.Close()) }()
	tested.Method, tested.Attempts = mounted.Method(), mounted.Attempts()
	run, err := o.evidence(ctx, mounted, work.Path())
	if err != nil {
		return tested, err
	}
	result, err := evidence.Run(ctx, run)
	if err != nil {
		return tested, err
	}
	err = o.conclude(ctx, &tested, result)
	return tested, err
}

// conclude attaches and keeps the results, and judges by them.
func (o TestOptions) conclude(ctx context.Context, tested *Tested, result evidence.Result) (err error) {
	tested.Verdict = result.Verdict
	if o.Run.Restricted {
		tested.Verdict = evidence.Withheld(result.Verdict)
	}
	if o.Attach != nil {
		if tested.Attached, err = attachResults(ctx, *o.Attach, result); err != nil {
			return errors.Join(err, o.keep(result.Dir))
		}
	}
	if err := o.keep(result.Dir); err != nil {
		return err
	}
	return evidence.Result{Verdict: tested.Verdict}.Err()
}

// evidence completes how the tests are run; work is an empty directory.
func (o TestOptions) evidence(ctx context.Context, m *mount.Mount, work string) (evidence.Options, error) {
	run := o.Run
	run.Env, run.ImageFile, run.Events = o.Image.Env, o.Image.Path, o.Events
	run.Mounted, run.MountPoint = m, m.MountPoint()
	run.Extra, run.Scratch = filepath.Join(work, "extra"), filepath.Join(work, "run")
	run.Hide = append(slices.Clip(run.Hide), filepath.Dir(scratch.Root(o.WorkDir)))
	run.Image = o.subject()
	if run.Now == nil {
		run.Now = time.Now
	}
	err := image.UnpackExtra(ctx, o.Image.Path, run.Extra)
	if errors.Is(err, fs.ErrNotExist) {
		run.Extra, err = "", nil
	}
	return run, errors.Join(err, os.Mkdir(run.Scratch, 0o700))
}

// subject is what the verdict says was tested.
func (o TestOptions) subject() meta.Subject {
	if o.Attach == nil {
		return o.Run.Image
	}
	return meta.Subject{Label: o.Attach.Label.String(), Digest: o.Attach.Descriptor.Digest}
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
