// Package build turns a recipe into an installed store, in memory: one job, in a
// private directory that is gone after the build however it ends, in a sandbox
// where the store appears at the mount point of the image.
package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/redact"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
)

// Options say what is built, and how.
type Options struct {
	// Stack is what the build tree is rendered from. Its BuildDir is set here.
	Stack stack.Input

	// CAFile has certificates to trust besides the system's, for build caches in
	// registries; "" for none.
	CAFile string

	System, UArch string

	// Root is the directory in which the private directory is made; "" means
	// DefaultRoot. Size is the room that the build needs there, in bytes; 0 means
	// a guess.
	Root string
	Size int64

	// Spack is the directory of a Spack installation. "" means the one that
	// UENV_CI_SPACK names, else the one on PATH, else a clone of what the recipe
	// asks for.
	Spack string

	// Engine is what builds recipes for Spack: EngineDirect, or "", or
	// EngineStackinator. Stackinator names the latter's program, or a directory
	// that has it; "" is the one on PATH.
	Engine      string
	Stackinator string

	// NoSandbox runs the build on the bare machine. The mount point must then be
	// a missing or empty directory of a writable one.
	NoSandbox bool

	// Network leaves the network on for the recipe's own programs: hooks, and
	// build of the script builder. Spack itself has it while it fetches and
	// installs, unless Offline.
	// AirGapped is Offline for hooks too, and what is missing among the sources is
	// told before anything is built.
	Network   bool
	Offline   bool
	AirGapped bool

	// Env names variables of our environment that the build may see, besides
	// those with the prefix UENV_CIBUILDV_. Hide lists more paths, such as
	// credential files, that it must not see.
	Env  []string
	Hide []string

	// Jobs is how many things are compiled at once; 0 means one per processor, if
	// there is MemoryPerJob for each, in bytes (0 is DefaultMemoryPerJob).
	Jobs         int
	MemoryPerJob int64
	LogDir       string // receives the logs of all programs; "" keeps none
	// ArchiveDir receives the logs of all programs as one archive if the build
	// fails; "" keeps none.
	ArchiveDir string
	// Report, if it is not nil, receives what was done, also if the build fails.
	Report *Report
	// Protected says that the recipe is as people who are trusted have let it be: a
	// protected ref. Only then do hooks get secrets, and the protected build
	// cache packages.
	Protected bool
	Hooks     Hooks
	// ChangeCache is the build cache of the change that is built, nil for none:
	// only a build that is not Protected reads and writes it. Stack.Mirrors has
	// the protected one.
	ChangeCache *site.Mirrors
	// SourceCache is a directory with sources in the layout of Spack's mirrors, "" for
	// none. They are taken from there, and what is fetched is put there.
	SourceCache string
	// NoBuildCache leaves both aside: every package is built.
	NoBuildCache bool
	// StrictViews makes it an error, not a warning, that packages of a view have the
	// same file with different content.
	StrictViews bool

	// Restricted keeps what programs say out of events, errors and the report,
	// and writes no archive.
	Restricted bool
	Limits     Limits
	Events     event.Sink

	shell   *Shell // nil for none
	redact  *redact.Redactor
	secrets []hookSecret
}

// Result is an installed store. It lives until Close.
type Result struct {
	Store    string   // directory on this machine
	Mount    string   // path at which the store has to appear
	BuildDir string   // directory on this machine that holds Store
	Meta     meta.Env // as in Store/meta/env.json
	Report   Report

	workspace *workspace
}

// Close removes the store and everything else the build left. It may be called
// more than once.
func (r *Result) Close() error {
	if err := r.workspace.close(); err != nil {
		return fmt.Errorf("remove the build: %w", err)
	}
	return nil
}

// Run builds. On any error, a cancellation included, nothing is left but the
// logs in LogDir and ArchiveDir, and what is told in Report. No secret that we know
// of is in those, in the error or in an event.
func Run(ctx context.Context, o Options) (*Result, error) {
	var err error
	if o.secrets, err = o.readSecrets(); err != nil {
		return nil, err
	}
	o.Offline = o.Offline || o.AirGapped
	o.Hide = slices.Clone(o.Hide)
	var values []string
	for _, s := range o.secrets {
		values = append(values, s.value)
	}
	for _, s := range o.Hooks.Secrets {
		if file := s.File.Known(); file != "" {
			o.Hide = append(o.Hide, file)
		}
	}
	for _, m := range []*site.Mirrors{o.Stack.Mirrors, o.ChangeCache} {
		o.Hide = append(o.Hide, secretFiles(m)...)
	}
	o.redact = redact.New(o.Hide, values)
	for _, m := range []*site.Mirrors{o.Stack.Mirrors, o.ChangeCache} {
		o.Hide = append(o.Hide, holders(m)...) // what else they say is no secret
	}
	h := &heartbeat{to: o.redact.Sink(o.Events)}
	o.Events = h.sink
	beating, stop := context.WithCancel(ctx)
	defer stop()
	go h.beat(beating, heartbeatInterval)
	result, err := o.build(ctx)
	return result, o.redact.Error(err)
}

// secretFiles are the files with keys and credentials of a build cache.
func secretFiles(m *site.Mirrors) []string {
	if m == nil || m.BuildCache == nil {
		return nil
	}
	files := []string{m.BuildCache.Key, m.BuildCache.Credentials}
	for _, k := range m.Keys {
		if k.Private && !k.Inline {
			files = append(files, k.File)
		}
	}
	return slices.DeleteFunc(files, func(file string) bool { return file == "" })
}

// holders are the mirror files that have a private key in them.
func holders(m *site.Mirrors) []string {
	if m == nil {
		return nil
	}
	var files []string
	for _, k := range m.Keys {
		if k.Private && k.Inline {
			files = append(files, k.File)
		}
	}
	return files
}

func (o *Options) build(ctx context.Context) (*Result, error) {
	if err := o.check(ctx); err != nil {
		return nil, err
	}
	w, swept, err := openWorkspace(o.Root, o.Stack.Recipe.Name)
	if err != nil {
		return nil, err
	}
	for _, job := range swept {
		o.Events.Warn("build", "removed leftovers of the dead build %s", job)
	}
	if w.stuck != nil {
		o.Events.Warn("build", "%v", w.stuck)
	}
	if err := o.checkRoom(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	j := &job{Options: o, ctx: ctx, views: map[string]meta.View{}}
	j.report = Report{
		Recipe: o.Stack.Recipe.Name, Mount: o.mount(), System: o.System, UArch: o.UArch,
		Started: time.Now().UTC().Truncate(time.Second), Jobs: o.jobs(), Sandbox: !o.NoSandbox, Stages: []Stage{},
	}
	env, err := j.run(ctx, w)
	if j.shell != nil {
		err = j.openShell(err)
		return nil, errors.Join(err, j.cell.close(), w.close())
	}
	err = errors.Join(err, j.keep(w, err), j.cell.close())
	if err != nil {
		return nil, errors.Join(err, o.discard(ctx, w))
	}
	return &Result{
		Store: j.cell.store(), Mount: o.mount(), BuildDir: w.Dir, Meta: env, Report: j.report, workspace: w,
	}, nil
}

// check refuses what cannot work before anything is made.
func (o *Options) check(ctx context.Context) error {
	if o.Stack.Recipe == nil {
		return fault.New(fault.Usage, "build: no recipe")
	}
	if err := checkMount(o.mount()); err != nil {
		return err
	}
	if err := o.checkEngine(); err != nil {
		return err
	}
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	root, err := filepath.EvalSymlinks(o.Root)
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return fault.WithHint(fmt.Errorf("find the build root: %w", err), "choose another one with --build-root")
	}
	o.Root = root
	if o.Limits.Previous != nil {
		o.Size = max(o.Size, o.Limits.Previous.Peak.Storage)
	}
	if o.Size == 0 {
		o.Size = spackSize
		if o.script() {
			o.Size = scriptSize
		}
	}
	if err := o.checkSourceCache(); err != nil {
		return err
	}
	if o.NoSandbox {
		return nil
	}
	return fault.WithHint(sandbox.Available(ctx), "%s", sandboxHint)
}

// checkRoom refuses what there is no room for, once dead builds take none any more.
func (o *Options) checkRoom() error {
	if err := checkCapacity(o.Root, o.Size); err != nil {
		return err
	}
	if err := o.Limits.refuse(o.Root); err != nil {
		return err
	}
	o.chooseJobs()
	return nil
}

const sandboxHint = "install bubblewrap and allow user namespaces, or build with --no-sandbox and --mount PATH"

func checkMount(mount string) error {
	err := pathcheck.MountPoint(mount)
	if err == nil && pathcheck.Within(mount, buildDir) {
		err = errors.New("builds have their files there")
	}
	return fault.Wrap(fault.Usage, err, "an image cannot be mounted at %q", mount)
}

func (o *Options) mount() string {
	mount := o.Stack.Mount
	if mount == "" {
		mount = o.Stack.Recipe.Store
	}
	return filepath.Clean(mount)
}

func (o *Options) script() bool { return o.Stack.Recipe.Builder == recipe.BuilderScript }

// job is a build under way.
type job struct {
	*Options
	ctx    context.Context // of the whole build
	cell   *cell
	tree   *stack.Tree
	report Report
	views  map[string]meta.View
	// spackScalars are the variables of the view spack.
	spackScalars map[string]*string
}

// discard removes a build that failed, or keeps it for a while.
func (o *Options) discard(ctx context.Context, w *workspace) error {
	if o.Limits.KeepOnFailure <= 0 || ctx.Err() != nil {
		return w.close()
	}
	until := time.Now().Add(o.Limits.KeepOnFailure)
	if err := w.keep(until); err != nil {
		return errors.Join(err, w.close())
	}
	o.Events.Info("build", "the build directory %s is kept until %s", w.Dir, until.Format(time.RFC3339))
	return nil
}

func (j *job) run(ctx context.Context, w *workspace) (env meta.Env, err error) {
	start := time.Now()
	defer func() { j.report.Seconds = seconds(time.Since(start)) }()
	if j.cell, err = newCell(j.Options, w); err != nil {
		return env, fmt.Errorf("prepare the build: %w", err)
	}
	watched, stop := context.WithCancel(ctx)
	defer stop()
	go j.cell.guard.watch(watched)
	defer func() { j.report.CPUSeconds, j.report.Peak = seconds(j.cell.used()), j.cell.guard.peaks() }()
	if err := j.stage("prepare", func() error { return j.prepare() }); err != nil {
		return env, err
	}
	switch {
	case j.script():
		err = j.buildScript(ctx)
	case j.Engine == EngineStackinator:
		err = j.buildStackinator(ctx)
	default:
		err = j.buildSpack(ctx)
	}
	if err != nil {
		return env, err
	}
	if err := j.stage("finish", j.finish); err != nil {
		return env, err
	}
	return j.env()
}

// seconds returns a time as reports have it: to the millisecond.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// prepare writes the build tree.
func (j *job) prepare() error {
	in := j.Stack
	in.Mount, in.BuildDir, in.System = j.mount(), j.cell.Build, j.System
	tree, warnings, err := stack.Render(in)
	for _, w := range warnings {
		j.Events.Warn("prepare", "%s", w.Plain())
	}
	if err != nil {
		return err
	}
	// Private keys stay where no program of the build sees them.
	tree.Files = slices.DeleteFunc(tree.Files, func(f stack.File) bool {
		return strings.HasPrefix(f.Path, "config/key_store/") && strings.HasSuffix(f.Path, ".priv.gpg")
	})
	j.tree = tree
	j.repositories()
	return tree.Write(j.cell.host)
}
