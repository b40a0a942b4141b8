package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/scratch"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/squashfs"
	"uenv-ci.dev/internal/stack"
)

// ReproduceOptions say how to repeat a build.
type ReproduceOptions struct {
	Report BuildReport
	// Build has what is of this machine: Root, Hide, Hooks, LogDir, Events and the
	// like; and what is to be taken in place of what the report names: Recipe,
	// Cluster, Mirrors and Spack. NoSandbox and Protected allow what the report
	// asks for.
	Build     BuildOptions
	Variables map[string]string // that the build will see
	Versions  map[string]string // of this program, by name
	Out       string            // the image file; "" keeps none
	Shell     *build.Shell      // opened in the build; nil: it is built to the end
}

// Reproduced is the result of repeating a build.
type Reproduced struct {
	Label   label.Label `json:"label"`
	Recipe  string      `json:"recipe"` // directory that was built
	Cluster string      `json:"cluster,omitempty"`
	Spack   string      `json:"spack,omitempty"`
	// Expected is the digest of the image of the report, "" if that build failed.
	Expected digest.Digest `json:"expected,omitempty"`
	Image    image.File    `json:"image,omitzero"`
	Same     bool          `json:"same"`
	// Because is what may be why it is another image: what was used here and then
	// that is not the same, a sentence each.
	Because []string     `json:"because,omitempty"`
	Report  build.Report `json:"report,omitzero"`
}

// reproduction is the repetition of a build.
type reproduction struct {
	ReproduceOptions
	events  event.Sink
	scratch string
	done    Reproduced
}

// Reproduce repeats a build with the same files, commits, sandbox and variables. What has
// changed or disappeared is fetched from git; if that fails, the error says what is
// missing. With a shell the result only describes the build in which it was opened.
func Reproduce(ctx context.Context, o ReproduceOptions) (_ Reproduced, err error) {
	work, err := scratch.New("", o.Build.Events)
	if err != nil {
		return Reproduced{}, err
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	r := &reproduction{ReproduceOptions: o, events: o.Build.Events, scratch: work.Path()}
	r.done.Label, r.done.Expected = o.Report.Label, o.Report.Image.Digest
	err = r.run(ctx)
	return r.done, err
}

func (r *reproduction) run(ctx context.Context) error {
	in, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	if r.Shell != nil {
		options, err := r.Build.options(in, &r.done.Report)
		if err != nil {
			return err
		}
		return build.OpenShell(ctx, options, *r.Shell)
	}
	pack, err := r.packing()
	if err == nil && r.Out != "" {
		err = atomicfile.Check(r.Out)
	}
	if err != nil {
		return err
	}
	built, err := r.Build.run(ctx, in, &r.done.Report)
	if err != nil {
		return err
	}
	defer built.Close()
	out := cmp.Or(r.Out, filepath.Join(r.scratch, meta.ImageTitle))
	if r.done.Image, err = image.Pack(ctx, built.Store, out, pack); err != nil {
		return err
	}
	r.done.Image.Path = r.Out
	if r.done.Same = r.done.Image.Digest == r.done.Expected; !r.done.Same && r.done.Expected != "" {
		r.done.Because = r.because()
	}
	return built.Close()
}

// because lists what has changed since the build.
func (r *reproduction) because() []string {
	var said []string
	differ := func(what, then, now, also string) {
		if then != now && then != "" && now != "" {
			said = append(said, fmt.Sprintf("%s %s here, %s then%s", what, now, then, also))
		}
	}
	differ("the image is packed with", r.Report.Image.Codec, r.done.Image.Codec,
		": the same content has another digest; take a uenv-ci with that codec (one built with cgo has libzstd)")
	differ("uenv-ci is", r.Report.Builder["uenv-ci"], r.Versions["uenv-ci"], "")
	differ("uenv-ci is of commit", r.Report.Builder["revision"], r.Versions["revision"], "")
	if then, now := r.Report.Report.Spack, r.done.Report.Spack; then != nil && now != nil {
		differ("Spack is", then.Version, now.Version, "")
		differ("Spack is of commit", then.Commit, now.Commit, "")
	}
	return said
}

// prepare finds all that the build needs and returns it.
func (r *reproduction) prepare(ctx context.Context) (stack.Input, error) {
	was, b := r.Report.Inputs, &r.Build
	if was.Recipe.Dir == "" {
		return stack.Input{}, fault.New(fault.Invalid, "the report does not say what was built: it ended before that was known")
	}
	if !was.Sandbox && !b.NoSandbox {
		return stack.Input{}, fault.WithHint(fault.New(fault.Refused, "the build ran without a sandbox"),
			"--no-sandbox allows it to do so here, on the bare machine")
	}
	if err := r.variables(); err != nil {
		return stack.Input{}, err
	}
	b.System, b.UArch, b.Mount, b.Develop, b.NoSandbox = was.System, was.UArch, was.Mount, was.Develop, !was.Sandbox
	b.Engine, b.Stackinator = was.Engine, was.Stackinator
	b.Network, b.Env, b.Jobs = was.HookNetwork, was.Env, cmp.Or(b.Jobs, was.Jobs)
	b.Offline, b.AirGapped = b.Offline || was.Offline, b.AirGapped || was.AirGapped
	b.Protected, b.Restricted = b.Protected && was.Protected, b.Restricted || was.Restricted
	var err error
	if b.Recipe, err = r.find(ctx, "recipe", was.Recipe, b.Recipe, recipeFiles); err != nil {
		return stack.Input{}, err
	}
	if was.Cluster != nil {
		loaded, err := recipe.Load(ctx, b.Recipe)
		if err != nil {
			return stack.Input{}, err
		}
		if b.Cluster, err = r.find(ctx, "cluster", *was.Cluster, b.Cluster, clusterFiles(loaded.Version)); err != nil {
			return stack.Input{}, err
		}
	}
	if b.Mirrors = cmp.Or(b.Mirrors, was.Mirrors); b.Mirrors != "" {
		if _, err := os.Stat(b.Mirrors); err != nil {
			r.events.Warn("reproduce", "no mirrors and build caches: %v", err)
			b.Mirrors = ""
		}
	}
	if b.Spack, err = r.findSpack(ctx); err != nil {
		return stack.Input{}, err
	}
	r.done.Recipe, r.done.Cluster, r.done.Spack = b.Recipe, b.Cluster, b.Spack
	return b.Load(ctx)
}

// variables refuses to build without the variables that the build saw.
func (r *reproduction) variables() error {
	var missing []string
	for _, name := range r.Report.Inputs.Variables {
		if _, ok := r.Variables[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.WithHint(fault.New(fault.NotFound, "the build saw variables that are not set here: %s", strings.Join(missing, ", ")),
		"a report has no values: set %s, or the same without the prefix if it was named by --env", "UENV_CIBUILDV_"+missing[0])
}

func (r *reproduction) packing() (image.PackOptions, error) {
	was := r.Report.Inputs
	codec, err := squashfs.ParseCodec(was.Packing.Codec)
	if err != nil {
		return image.PackOptions{}, fault.Wrap(fault.Invalid, err, "the report")
	}
	created, err := time.Parse(time.RFC3339, was.Created)
	if err != nil {
		return image.PackOptions{}, fault.Wrap(fault.Invalid, err, "the report: creation time")
	}
	return image.PackOptions{Created: created, Codec: codec, Level: was.Packing.Level, BlockSize: was.Packing.BlockSize, Mksquashfs: was.Packing.Mksquashfs, Events: r.events}, nil
}

// digester computes the digest of those files of a directory that decide about
// an image.
type digester func(dir string) (string, error)

func recipeFiles(dir string) (string, error) {
	var files plan.Files
	digests, err := files.Recipe(dir)
	return plan.DirHash(digests), err
}

func clusterFiles(recipeVersion int) digester {
	return func(dir string) (string, error) {
		c, err := site.LoadCluster(dir)
		if err != nil {
			return "", err
		}
		var files plan.Files
		digests, err := files.Cluster(c, recipeVersion)
		return plan.DirHash(digests), err
	}
}

// find returns a directory with the files that a build had: the one that is given,
// the one that the build used, or a checkout of the same commit.
func (r *reproduction) find(ctx context.Context, what string, was Origin, given string, files digester) (string, error) {
	if given != "" {
		if now, err := files(given); err != nil || now != was.Files {
			r.events.Warn("reproduce", "the %s %s has other files than the build had", what, given)
		}
		return given, nil
	}
	if now, err := files(was.Dir); err == nil && now == was.Files {
		return was.Dir, nil
	}
	gone := fmt.Sprintf("the %s of the build is gone: %s has other files now", what, was.Dir)
	if _, err := os.Stat(was.Dir); err != nil {
		gone = fmt.Sprintf("the %s of the build is gone: there is no %s", what, was.Dir)
	}
	hint := "give a directory with --" + what
	switch {
	case was.Commit == "":
		return "", fault.WithHint(fault.New(fault.NotFound, "%s, and it was in no git repository", gone), "%s", hint)
	case was.Dirty:
		return "", fault.WithHint(fault.New(fault.NotFound, "%s, and it had changes that were in no commit", gone), "%s", hint)
	case !git.IsCommit(was.Commit) || !filepath.IsLocal(filepath.FromSlash(was.Path)):
		return "", fault.New(fault.Invalid, "the report does not identify the %s", what)
	}
	to := filepath.Join(r.scratch, what)
	if err := r.checkOut(ctx, was, to); err != nil {
		return "", fault.WithHint(fault.New(fault.NotFound, "%s, and commit %s is not available: %w", gone, was.Commit, err), "%s", hint)
	}
	dir := filepath.Join(to, filepath.FromSlash(was.Path))
	if now, err := files(dir); err != nil || now != was.Files {
		return "", fault.WithHint(fault.New(fault.NotFound, "%s, and commit %s has other files than the build had", gone, was.Commit), "%s", hint)
	}
	r.events.Info("reproduce", "%s: %s at commit %s", what, cmp.Or(was.Remote, was.Dir), was.Commit)
	return dir, nil
}

// checkOut makes a checkout of a commit, from the repository of the machine, else
// from where that came from.
func (r *reproduction) checkOut(ctx context.Context, was Origin, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	if here, err := git.Describe(ctx, was.Dir); err == nil {
		if err := git.Export(ctx, here.Root, was.Commit, to); err == nil {
			return nil
		}
	}
	switch {
	case was.Remote == "":
		return errors.New("its repository has no origin")
	case r.Build.Offline:
		return fmt.Errorf("it is in %s, and the network may not be used", was.Remote)
	}
	_, err := git.Clone(ctx, was.Remote, was.Commit, to)
	return err
}

// findSpack returns the directory of the Spack that the build used, a clone of its
// commit if need be. It is "" if the build used none.
func (r *reproduction) findSpack(ctx context.Context) (string, error) {
	used, given := r.Report.Report.Spack, r.Build.Spack
	if used == nil {
		return given, nil
	}
	for _, dir := range nonEmpty(given, used.Dir) {
		head, err := git.Head(ctx, dir)
		switch {
		case err == nil && head.Commit == used.Commit || used.Commit == "" && isDirectory(dir):
			if head.Dirty {
				r.events.Warn("reproduce", "%s has changes that are in no commit", dir)
			}
			return dir, nil
		case dir == given:
			r.events.Warn("reproduce", "the build used Spack %s, %s is %s", used.Commit, dir, cmp.Or(head.Commit, "of unknown origin"))
			return dir, nil
		}
	}
	if used.Commit == "" {
		return "", fault.WithHint(fault.New(fault.NotFound, "the Spack of the build is gone: %s does not exist", cmp.Or(used.Dir, used.Source)), "give another one with --spack")
	}
	return r.cloneSpack(ctx, used)
}

// cloneSpack clones the Spack of the build from where it may still be.
func (r *reproduction) cloneSpack(ctx context.Context, used *build.Spack) (string, error) {
	from := nonEmpty(used.Dir)
	if !r.Build.Offline {
		if used.Dir == "" {
			from = append(from, used.Source)
		}
		for _, s := range r.Report.Sources {
			if s.Name == "spack" && !slices.Contains(from, s.Repo) {
				from = append(from, s.Repo)
			}
		}
	}
	why := errors.New("there is no repository to look in")
	for i, url := range from {
		dir := filepath.Join(r.scratch, fmt.Sprintf("spack-%d", i))
		if _, err := git.Clone(ctx, url, used.Commit, dir); err != nil {
			why = err
			continue
		}
		r.events.Info("reproduce", "spack: %s at commit %s", url, used.Commit)
		return dir, nil
	}
	return "", fault.WithHint(fault.New(fault.NotFound, "the Spack of the build, commit %s, is gone: %w", used.Commit, why), "give another one with --spack")
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func nonEmpty(values ...string) []string {
	return slices.DeleteFunc(values, func(v string) bool { return v == "" })
}
