package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/scratch"
)

// RunOptions say how the jobs of a plan are run on this machine.
type RunOptions struct {
	Jobs      int  // at a time; 0 is one
	KeepGoing bool // start the others too after a job has failed
	// Label names the image of a job in full.
	Label func(plan.Job) (label.Label, error)
	// Build and Test say how: what follows from the job's image is filled in here. Their
	// context ends with the job. Test
	// is asked first, and makes a directory where the tests can read the image, which is
	// removed when they have ended.
	Build  func(context.Context, plan.Job, label.Label, event.Sink) (BuildImageOptions, error)
	Test   func(context.Context, plan.Job, event.Sink) (TestOptions, *scratch.Dir, error)
	Events event.Sink // names each stage with its job
}

// Ran is what became of a plan.
type Ran struct {
	Jobs    []RanJob // in the order of the plan
	Dropped []plan.Dropped
	Seconds float64
}

// Progress of one part of a job.
const (
	NotRun   = "not run"
	Built    = "built"
	Existing = "existing" // the registry had the image, by its key
	Broken   = "failed"   // the build, or the machinery of the tests
	Stopped  = "interrupted"
)

// RanJob is what became of a job.
type RanJob struct {
	ID     string        `json:"id"`
	Label  label.Label   `json:"label,omitzero"`
	Digest digest.Digest `json:"digest,omitempty"` // of the image's manifest
	Build  string        `json:"build"`            // NotRun, Built, Existing, Broken or Stopped
	// Tests is the verdict, or NotRun, Broken or Stopped. Counts are those of the verdict.
	Tests  string      `json:"tests"`
	Counts meta.Counts `json:"counts,omitzero"`
	// TestedBefore is set if an earlier run has tested the image, with this verdict.
	TestedBefore bool    `json:"tested_before,omitempty"`
	Seconds      float64 `json:"seconds"`
	Error        string  `json:"error,omitempty"`
	Hint         string  `json:"hint,omitempty"`

	err error
}

// Err is why the job did not succeed; its kind is Untested if no test ran.
func (j RanJob) Err() error { return j.err }

// Run builds, publishes and tests the images of a plan, in its order. What the registry
// has already, by content key, is not built again, and an image that has passed its tests
// on the system is not tested again: a run that was stopped goes on where it was. The
// error is that of the worst job.
func Run(ctx context.Context, p plan.Plan, o RunOptions) (Ran, error) {
	start := time.Now()
	r := &planRun{RunOptions: o, planner: newPlanner(PlanOptions{Events: o.Events}), done: Ran{Jobs: make([]RanJob, len(p.Jobs)), Dropped: p.Dropped}}
	for i, j := range p.Jobs {
		r.done.Jobs[i] = RanJob{ID: j.ID, Build: NotRun, Tests: NotRun}
	}
	var group errgroup.Group
	group.SetLimit(max(o.Jobs, 1))
	for i, j := range p.Jobs {
		group.Go(func() error {
			r.run(ctx, j, &r.done.Jobs[i])
			return nil
		})
	}
	err := group.Wait() // always nil: jobs keep their errors
	r.done.Seconds = float64(time.Since(start).Milliseconds()) / 1000
	if worst := r.done.worst(); worst != nil {
		return r.done, worst
	}
	return r.done, errors.Join(err, ctx.Err())
}

// planRun is the running of a plan.
type planRun struct {
	RunOptions
	stopped atomic.Bool // no further job is to start
	begun   atomic.Int64
	planner *planner   // knows what references stood for before
	bare    sync.Mutex // held by a job without a sandbox: two would share a mount point
	done    Ran
}

// run does all of one job. That an image has no tests keeps no other from being built.
func (r *planRun) run(ctx context.Context, j plan.Job, done *RanJob) {
	if !j.Sandbox {
		r.bare.Lock()
		defer r.bare.Unlock()
	}
	if ctx.Err() != nil || r.stopped.Load() {
		return
	}
	start := time.Now()
	r.Events.Info(j.ID, "begins, %d of %d", r.begun.Add(1), len(r.done.Jobs))
	one := &jobRun{planRun: r, job: j, done: done, events: func(e event.Event) {
		e.Stage = j.ID + " " + e.Stage
		r.Events.Emit(e)
	}}
	err := one.run(ctx)
	done.Seconds = float64(time.Since(start).Milliseconds()) / 1000
	if err != nil && ctx.Err() != nil {
		err = fault.Wrap(fault.Interrupted, err, "interrupted")
		for _, part := range []*string{&done.Build, &done.Tests} {
			if *part == Broken {
				*part = Stopped
			}
		}
	}
	if done.err = err; err != nil {
		done.Error, done.Hint = err.Error(), fault.HintOf(err)
	}
	switch {
	case err == nil:
		r.Events.Info(j.ID, "%s, tests: %s", done.Build, done.Tests)
	case fault.KindOf(err) == fault.Untested:
		r.Events.Warn(j.ID, "%v", err)
	default:
		r.Events.Warn(j.ID, "%v", err)
		if !r.KeepGoing {
			r.stopped.Store(true)
		}
	}
}

// jobRun is the running of a job.
type jobRun struct {
	*planRun
	job    plan.Job
	done   *RanJob
	events event.Sink
}

func (r *jobRun) run(ctx context.Context) (err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	if r.done.Label, err = r.Label(r.job); err != nil {
		return err
	}
	o, err := r.RunOptions.Build(ctx, r.job, r.done.Label, r.events)
	if err != nil {
		return err
	}
	tests, work, err := r.RunOptions.Test(ctx, r.job, r.events)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	if err := r.complete(ctx, o); err != nil {
		return err
	}
	if r.done.Tests == NotRun { // they need the file
		o.Out = filepath.Join(work.Path(), meta.ImageTitle)
	} else if !o.Key.Offline {
		// A job that takes long asks again: by then a branch may have moved.
		o.Key.Resolve = r.planner.resolve
	}
	built, err := BuildImage(ctx, r.done.Label, o)
	if err != nil {
		r.done.Build, r.done.Tests, r.done.TestedBefore = Broken, NotRun, false
		return errors.Join(err, keepBuilt(built, o))
	}
	if r.done.Build = Built; built.Existing != "" {
		r.done.Build = Existing
	}
	if r.done.Tests != NotRun && r.done.Digest == built.Pushed.Digest {
		return nil
	}
	r.done.Digest = built.Pushed.Digest
	found, err := r.found(o.Push, *built.Pushed)
	if err != nil {
		return err
	}
	file := o.Out
	if file == "" {
		file = filepath.Join(work.Path(), meta.ImageTitle)
		if err := found.fetch(ctx, file, r.events); err != nil {
			return err
		}
	}
	return r.test(ctx, tests, found, file)
}

// keepBuilt saves an image that could not be published, as BuildImage does with one for
// which no file was asked.
func keepBuilt(built BuildReport, o BuildImageOptions) error {
	if o.Unpublished == "" || built.Pushed != nil || built.Image.Path == "" || built.Image.Path == o.Unpublished {
		return nil
	}
	if err := moveFile(built.Image.Path, o.Unpublished); err != nil {
		return fmt.Errorf("keep the image: %w", err)
	}
	o.Pack.Events.Warn("publish", "the image is built and kept in %s: 'uenv-ci push' with --report %s publishes it", o.Unpublished, o.ReportFile)
	return nil
}

// complete finds out whether an earlier run has done all of the job. The key is that of
// the plan: the build computes it again.
func (r *jobRun) complete(ctx context.Context, o BuildImageOptions) error {
	if r.job.Key == "" || o.Push == nil || o.Key.Rebuild {
		return nil
	}
	found, err := keyStore{o.Push, r.done.Label, o.Key.PerChange, r.events}.find(ctx, r.job.Key)
	if found == nil || err != nil {
		return err
	}
	here, err := r.found(o.Push, found.Descriptor)
	if err != nil {
		return err
	}
	results, err := meta.Results(ctx, here.Repo, here.Descriptor)
	if err != nil {
		return err
	}
	for _, result := range results { // newest first
		if result.System != r.job.System || result.Verdict == nil {
			continue
		}
		v := result.Verdict
		if decided := v.Decide(time.Now()); decided.State == meta.Pass || decided.State == meta.Waived {
			r.done.Tests, r.done.Counts, r.done.TestedBefore = string(decided.State), decided.Counts, true
			r.done.Digest = found.Descriptor.Digest
		}
		break
	}
	return nil
}

// found is the job's image in the registry.
func (r *jobRun) found(reg *registry.Registry, desc ocispec.Descriptor) (Found, error) {
	repo, err := reg.Repository(r.done.Label.Repository())
	return Found{Label: r.done.Label, Repo: repo, Descriptor: desc}, err
}

// fetch downloads the image to a file.
func (f Found) fetch(ctx context.Context, file string, events event.Sink) error {
	m, err := image.Read(ctx, f.Repo, f.Descriptor)
	if err != nil {
		return err
	}
	return image.Fetch(ctx, f.Repo, m, file, image.FetchOptions{Events: events})
}

// test tests the image, which is in a file too.
func (r *jobRun) test(ctx context.Context, o TestOptions, found Found, file string) (err error) {
	r.done.Tests, r.done.Counts, r.done.TestedBefore = Broken, meta.Counts{}, false // until there is a verdict
	if o.Image, err = FileRunnable(file, r.events); err != nil {
		return err
	}
	o.Attach = &found
	tested, err := Test(ctx, o)
	if v := tested.Verdict; v.State != "" {
		r.done.Tests, r.done.Counts = string(v.State), v.Counts
	}
	return err
}

// worst is the error of a plan of which a job did not succeed; what went wrong is told by
// the jobs. Its kind decides the exit code: interruption before all others, and they in
// the order of the exit codes.
func (r Ran) worst() error {
	var worst *RanJob
	var failed, left int
	for i := range r.Jobs {
		j := &r.Jobs[i]
		if j.err == nil {
			if j.Build == NotRun {
				left++
			}
			continue
		}
		failed++
		if worst == nil || severity(j.err) < severity(worst.err) {
			worst = j
		}
	}
	if worst == nil {
		return nil
	}
	text := fmt.Sprintf("%d of %d images did not succeed", failed, len(r.Jobs))
	if left > 0 {
		text += fmt.Sprintf(", %d not begun", left)
	}
	return fault.New(fault.KindOf(worst.err), "%s; the worst is %s", text, worst.ID)
}

// severity orders errors, the worst first.
func severity(err error) int {
	if kind := fault.KindOf(err); kind != fault.Interrupted {
		return int(kind)
	}
	return -1
}
