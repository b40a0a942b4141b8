package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/evidence"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/mount"
	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/sandbox"
)

// DemoOptions say what the demonstration uses.
type DemoOptions struct {
	Dir       string // everything is made below it; it must be empty
	Spack     string // a Spack checkout; "" for a recipe that needs none
	Cluster   string // cluster configuration for Spack; "" is an example
	System    string
	UArch     string
	BuildRoot string // "" is the default one
	Environ   []string
	Events    event.Sink
	OnStage   func(Stage) // called as each stage ends
}

// Stage is one step of the demonstration and how it went.
type Stage struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail"`
	Size    int64   `json:"-"` // in bytes, of what the stage made; 0 if nothing
	Digest  string  `json:"-"`
}

// DemoReport is what the demonstration showed.
type DemoReport struct {
	OK      bool       `json:"ok"`
	Stages  []Stage    `json:"stages"`
	Image   DemoImage  `json:"image"`
	Verdict meta.State `json:"verdict"`
	Notes   []string   `json:"notes"` // what was used, and what could not be
	// Commands repeat each stage by hand.
	Commands []string `json:"commands,omitempty"`
}

// DemoImage is the image at the end of the road.
type DemoImage struct {
	Label  string        `json:"label"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// demo is the state that one stage leaves to the next.
type demo struct {
	DemoOptions
	report   DemoReport
	recipe   string // directory
	name     string // of the recipe, and of its program
	boxed    bool   // a sandbox is there
	mount    string
	registry *registry.Registry
	local    *localrepo.Repo
	built    *build.Result
	created  time.Time
	file     image.File
	found    Found
	promoted Found
}

// Demo takes one recipe through all stages, without a server, root or network. Even with
// an error, the report says how far it got.
func Demo(ctx context.Context, o DemoOptions) (DemoReport, error) {
	d := &demo{DemoOptions: o}
	defer d.close()
	if err := d.prepare(ctx); err != nil {
		return d.report, err
	}
	for _, stage := range []struct {
		name string
		run  func(context.Context, *Stage) error
	}{
		{"build", d.build}, {"pack", d.pack}, {"publish", d.publish}, {"test", d.test}, {"promote", d.promote},
		{"pull", d.pull}, {"run", d.run}, {"find", d.find}, {"inspect", d.inspect},
	} {
		if err := d.stage(ctx, stage.name, stage.run); err != nil {
			return d.report, fmt.Errorf("%s: %w", stage.name, err)
		}
	}
	d.report.OK, d.report.Commands = true, d.commands()
	return d.report, nil
}

func (d *demo) stage(ctx context.Context, name string, run func(context.Context, *Stage) error) error {
	s := Stage{Name: name}
	started := time.Now()
	err := run(ctx, &s)
	s.Seconds = time.Since(started).Seconds()
	s.OK = err == nil
	if err != nil {
		s.Detail = err.Error()
	}
	d.report.Stages = append(d.report.Stages, s)
	if d.OnStage != nil {
		d.OnStage(s)
	}
	return err
}

func (d *demo) close() {
	if d.built != nil {
		d.built.Close()
	}
	if d.local != nil {
		d.local.Close()
	}
}

// prepare finds out what can be used here. Without a sandbox nothing can appear
// at a path that does not exist, so the image is made for one below Dir.
func (d *demo) prepare(ctx context.Context) error {
	if err := d.chooseRecipe(ctx); err != nil {
		return err
	}
	d.mount = pathcheck.DefaultMount
	err := sandbox.Available(ctx)
	d.boxed = err == nil
	if d.boxed {
		d.note("built and tested in a bubblewrap sandbox, at %s", d.mount)
	} else {
		d.mount = filepath.Join(d.Dir, "user-environment")
		d.note("no sandbox (%v): built without one, at %s", err, d.mount)
	}
	if d.registry, err = registry.Open("oci:"+d.RegistryDir(), registry.Options{Events: d.Events}); err != nil {
		return err
	}
	d.local, err = localrepo.Open(ctx, d.RepoDir(), localrepo.Options{Create: true, Events: d.Events})
	return err
}

// chooseRecipe writes the example recipe below Dir: the one for Spack only if a
// Spack was named, since one found by chance may be of the wrong version.
func (d *demo) chooseRecipe(ctx context.Context) (err error) {
	d.name = "hello"
	if d.Spack != "" {
		d.name = "hello-spack"
	} else {
		d.note("no Spack named (--spack): built with the script builder")
	}
	if d.recipe, err = extractExample(d.name+"/"+demoVersion, filepath.Join(d.Dir, "recipes")); err != nil {
		return err
	}
	if d.Spack != "" && d.Cluster == "" {
		d.Cluster, err = extractCluster(demoCluster, filepath.Join(d.Dir, "clusters"))
	}
	if c := compiler(ctx); c.OK {
		d.note("compiled with %s", c.Detail)
	} else {
		d.note("no C compiler: the example is a shell script")
	}
	return err
}

// RegistryDir is the OCI layout tree of the demonstration.
func (o DemoOptions) RegistryDir() string { return filepath.Join(o.Dir, "registry") }

// RepoDir is its local repository.
func (o DemoOptions) RepoDir() string { return filepath.Join(o.Dir, "repo") }

// ImageFile is its image.
func (o DemoOptions) ImageFile() string { return filepath.Join(o.Dir, meta.ImageTitle) }

func (d *demo) note(format string, args ...any) {
	d.report.Notes = append(d.report.Notes, fmt.Sprintf(format, args...))
}

func (d *demo) buildOptions() BuildOptions {
	return BuildOptions{
		Recipe: d.recipe, Cluster: d.Cluster, Mount: d.mount,
		Options: build.Options{
			System: d.System, UArch: d.UArch, Spack: d.Spack, NoSandbox: !d.boxed, Root: d.BuildRoot, Events: d.Events,
		},
	}
}

func (d *demo) build(ctx context.Context, s *Stage) error {
	built, err := Build(ctx, d.buildOptions())
	if err != nil {
		return err
	}
	d.built = built
	s.Detail = fmt.Sprintf("%s/%s at %s", d.name, demoVersion, built.Mount)
	if spack := built.Report.Spack; spack != nil {
		s.Detail += fmt.Sprintf(", %d packages, Spack %s", len(built.Report.Packages), spack.Version)
	}
	return nil
}

func (d *demo) pack(ctx context.Context, s *Stage) error {
	d.created = time.Now().Truncate(time.Second)
	file, err := image.Pack(ctx, d.built.Store, d.ImageFile(), image.PackOptions{Created: d.created, Events: d.Events})
	d.file = file
	s.Detail, s.Size, s.Digest = d.file.Codec, d.file.Size, d.file.Digest.String()
	return errors.Join(err, d.built.Close())
}

// The example, and its tags: a pipeline's number in the build namespace, a
// release in the deploy namespace.
const (
	demoVersion   = "1.0"
	demoCluster   = "debian12"
	demoBuildTag  = "1"
	demoDeployTag = "v1"
)

func (d *demo) label(namespace, tag string) label.Label {
	return label.Label{Namespace: namespace, Name: d.name, Version: demoVersion, Tag: tag, System: d.System, UArch: d.UArch}
}

func (d *demo) publish(ctx context.Context, s *Stage) error {
	l := d.label("build", demoBuildTag)
	repo, err := d.registry.Repository(l.Repository())
	if err != nil {
		return err
	}
	key, err := d.key(ctx)
	if err != nil {
		return err
	}
	desc, err := image.Publish(ctx, repo, d.file, image.PublishOptions{Created: d.created, Key: key, Tags: []string{l.Tag}, Events: d.Events})
	d.found = Found{Label: l, Repo: repo, Descriptor: desc}
	d.report.Image = DemoImage{l.String(), desc.Digest, d.file.Size}
	s.Detail, s.Digest = l.String(), desc.Digest.String()
	return err
}

// key returns the content key of the image, "" if it has none.
func (d *demo) key(ctx context.Context) (string, error) {
	in, err := d.buildOptions().Load(ctx)
	if err != nil {
		return "", err
	}
	k, err := keyOf(ctx, in, d.UArch, image.PackOptions{}, KeyOptions{}, d.Events)
	if err != nil {
		return "", err
	}
	spack := d.built.Report.Spack
	k.builtWith(spack, spackIsDirty(ctx, d.Spack, spack))
	return k.Key, nil
}

func (d *demo) test(ctx context.Context, s *Stage) error {
	target, err := FileRunnable(d.file.Path, d.Events)
	if err != nil {
		return err
	}
	target.Digest = d.file.Digest
	tested, err := Test(ctx, TestOptions{
		Image: target, Attach: &d.found, WorkDir: d.Dir, Events: d.Events,
		Run: evidence.Options{System: d.System, UArch: d.UArch, Environ: d.Environ, NoSandbox: !d.boxed},
	})
	d.report.Verdict = tested.Verdict.State
	s.Detail, s.Digest = fmt.Sprintf("%s: %s", tested.Verdict.State, tested.Verdict.Reason), tested.Attached.String()
	if tested.Method != "" {
		d.note("mounted by %s%s", tested.Method, tried(tested.Attempts))
	}
	return err
}

func tried(attempts []mount.Attempt) string {
	var reasons []string
	for _, a := range attempts {
		if a.Reason != "" {
			reasons = append(reasons, fmt.Sprintf("not by %s: %s", a.Method, a.Reason))
		}
	}
	if len(reasons) == 0 {
		return ""
	}
	return " (" + strings.Join(reasons, "; ") + ")"
}

func (d *demo) promote(ctx context.Context, s *Stage) error {
	l := d.label("deploy", demoDeployTag)
	promoted, err := Promote(ctx, d.found, d.registry, l, PromoteOptions{Who: "demo", Events: d.Events})
	if err != nil {
		return err
	}
	d.promoted = promoted.To
	d.report.Image.Label = l.String()
	s.Detail = fmt.Sprintf("%s, %d rules passed, %d bytes moved", l, len(promoted.Result.Rules), promoted.Result.Copy.Bytes)
	s.Digest = d.found.Descriptor.Digest.String()
	return nil
}

func (d *demo) pull(ctx context.Context, s *Stage) error {
	pulled, err := Pull(ctx, d.promoted, d.local, PullOptions{Events: d.Events})
	s.Detail, s.Size, s.Digest = strings.TrimPrefix(pulled.Path, d.Dir+"/"), pulled.Size, pulled.Digest.String()
	return err
}

func (d *demo) run(ctx context.Context, s *Stage) error {
	records, err := d.local.Lookup(ctx, label.Label{Name: d.name})
	if err != nil {
		return err
	}
	runnable, err := LocalRunnable(d.local, records[0])
	if err != nil {
		return err
	}
	environ, err := runnable.Environ(d.Environ, runnable.ChooseViews(d.views(), true))
	if err != nil {
		return err
	}
	mounted, err := runnable.Mount(ctx, MountOptions{WorkDir: d.Dir, Events: d.Events})
	if err != nil {
		return err
	}
	defer mounted.Close()
	cmd, err := mounted.Command(proc.Cmd{Path: demoProgram, Env: environ, Dir: d.Dir})
	if err != nil {
		return err
	}
	out, err := cmd.Output(ctx)
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	s.Detail = fmt.Sprintf("%s: %q", demoProgram, first)
	return err
}

func (d *demo) find(ctx context.Context, s *Stage) error {
	records, err := catalog.Find(ctx, d.registry, label.Label{Namespace: "deploy"}, catalog.Options{})
	if err == nil && len(records) == 0 {
		err = errors.New("the promoted image is not found")
	}
	s.Detail = fmt.Sprintf("%d image in namespace deploy", len(records))
	return err
}

func (d *demo) inspect(ctx context.Context, s *Stage) error {
	about, err := catalog.Inspect(ctx, d.promoted.Repo, d.promoted.Descriptor)
	if err != nil {
		return err
	}
	s.Detail = fmt.Sprintf("mount %s, views %s", about.Env.Mount, strings.Join(about.Env.ViewNames(), ", "))
	return nil
}

// demoProgram is a program of every example's image, and says something.
const demoProgram = "hello"

// views are those in which it runs, nil for the image's default view: recipes of
// version 1 cannot name one.
func (d *demo) views() []string {
	if d.Spack != "" {
		return []string{"default"}
	}
	return nil
}

// commands are what a person would type for each stage.
func (d *demo) commands() []string {
	build, deploy := d.label("build", demoBuildTag), d.label("deploy", demoDeployTag)
	unboxed := ""
	if !d.boxed {
		unboxed = " --no-sandbox --mount " + d.mount
	}
	if d.Spack != "" {
		unboxed += fmt.Sprintf(" --spack %s --cluster %s", d.Spack, d.Cluster)
	}
	view := ""
	for _, v := range d.views() {
		view += " --view " + v
	}
	local := deploy
	local.Namespace = ""
	return []string{
		"export UENV_CI_REGISTRY=oci:" + d.RegistryDir() + " UENV_CI_REPO=" + d.RepoDir(),
		// With the same time it is the same image, which may have the same names.
		fmt.Sprintf("uenv-ci build --recipe %s %s --out %s --push --created %s%s", d.recipe, build, d.ImageFile(), d.created.UTC().Format(time.RFC3339), unboxed),
		fmt.Sprintf("uenv-ci test %s", build),
		fmt.Sprintf("uenv-ci promote %s %s", build, deploy),
		fmt.Sprintf("uenv-ci pull %s", local),
		fmt.Sprintf("uenv-ci run%s %s -- %s", view, local, demoProgram),
		fmt.Sprintf("uenv-ci find @%s", d.System),
		fmt.Sprintf("uenv-ci inspect %s", deploy),
	}
}
