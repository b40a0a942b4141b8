package cli

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/registry"
)

func pushCommand() *command {
	return &command{
		name: "push", group: "CI", creates: true, writes: true, usage: "publish an image file, its metadata and then its tag",
		args: "FILE LABEL", minArgs: 2, maxArgs: 2,
		details: `The image's own meta/ directory is attached as uenv/meta before the tag appears, so
nobody ever sees an image without it. Pushing the same image again changes nothing.
The default namespace is 'build'.`,
		examples: `uenv-ci push store.squashfs hello/1.0:42@daint%gh200
# what a build could not publish
uenv-ci push unpublished.squashfs hello/1.0:42@daint%gh200 --report build-report.json
uenv-ci push --meta ./meta vendor.squashfs sdk/24.1:v1@daint%gh200`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "created", Usage: "creation `TIME` (RFC 3339) of the image; else SOURCE_DATE_EPOCH, or the file's own time"},
			&cli.StringFlag{Name: "report", Usage: "also publish what the build report `FILE` says about the image: key, provenance and packages"},
			&cli.StringFlag{Name: "meta", Usage: "attach the directory `DIR` to an image that has no metadata inside"},
		},
		run: runPush,
	}
}

type pushResult struct {
	Label  label.Label   `json:"label"`
	Digest digest.Digest `json:"digest"`
	ID     string        `json:"id"`
	Size   int64         `json:"size"`
}

func (r pushResult) text(p *printer) {
	p.printf("%s  %s  %s", r.Label, shortDigest(r.Digest.String()), event.FormatBytes(r.Size))
	p.printf("%s", p.dim(r.Digest.String()))
}

func runPush(ctx context.Context, in *invocation) (result, error) {
	l, err := in.fullLabel(1, in.build())
	if err == nil {
		err = in.refuseDeploy(l)
	}
	if err != nil {
		return nil, err
	}
	if in.String("report") != "" {
		return in.pushBuilt(ctx, l)
	}
	file, err := image.Stat(ctx, in.arg(0))
	if err != nil {
		return nil, err
	}
	created, err := in.createdOf(ctx, in.arg(0))
	if err != nil {
		return nil, err
	}
	repo, err := in.openRepository(l)
	if err != nil {
		return nil, err
	}
	o := image.PublishOptions{Created: created, Tags: []string{l.Tag}, NoChunks: in.site.Uenv(l.Name).Restricted, Events: in.events}
	o.First = func(ctx context.Context, desc ocispec.Descriptor) error {
		return image.AttachPublication(ctx, repo, desc, l.Tag, time.Now())
	}
	if dir := in.String("meta"); dir != "" {
		o.Meta = os.DirFS(dir)
	}
	desc, err := image.Publish(ctx, repo, file, o)
	if err != nil {
		return nil, err
	}
	return pushResult{l, desc.Digest, label.ID(desc.Digest), file.Size}, nil
}

// pushBuilt publishes an image with what its build report tells of it.
func (in *invocation) pushBuilt(ctx context.Context, l label.Label) (result, error) {
	if in.String("meta") != "" || in.String("created") != "" {
		return nil, usageError([]string{"push"}, "--report says all that --meta and --created could")
	}
	r, err := pipeline.ReadBuildReport(in.String("report"))
	if err != nil {
		return nil, err
	}
	reg, err := in.registryFor(l)
	if err != nil {
		return nil, err
	}
	done, err := pipeline.PublishBuilt(ctx, reg, in.arg(0), pipeline.PublishOptions{
		Label: l, Report: r, PerChange: in.perChange(), Restricted: in.site.Uenv(l.Name).Restricted, Events: in.events,
	})
	if err != nil {
		return nil, err
	}
	return pushResult{l, done.Pushed.Digest, label.ID(done.Pushed.Digest), done.Image.Size}, done.Write(in.String("report"))
}

// createdOf is the creation time of an image file that is pushed: the time in
// the file, so that pushing it twice gives one image.
func (in *invocation) createdOf(ctx context.Context, file string) (time.Time, error) {
	packed, err := image.PackedAt(file)
	if err != nil {
		return time.Time{}, err
	}
	return image.Created(ctx, image.CreatedOptions{Explicit: in.String("created"), SourceEpoch: in.getenv("SOURCE_DATE_EPOCH"), Now: packed})
}

func attachCommand() *command {
	return &command{
		name: "attach", group: "CI", writes: true, usage: "attach a file or directory to an image",
		args: "LABEL PATH --type T", minArgs: 2, maxArgs: 2,
		details: `A directory becomes one tar layer, which clients unpack. Test results and records
(promotions, deprecations) are attached by their own commands.`,
		examples: `uenv-ci attach --type application/spdx+json build::hello/1.0:42@daint%gh200 sbom.json`,
		flags:    []cli.Flag{&cli.StringFlag{Name: "type", Usage: "artifact `TYPE`, such as application/spdx+json"}},
		run:      runAttach,
	}
}

type attachResult struct {
	Label   label.Label   `json:"label"`
	Subject digest.Digest `json:"subject"`
	Type    string        `json:"type"`
	Digest  digest.Digest `json:"digest"`
}

func (r attachResult) text(p *printer) { p.printf("%s  %s  on %s", r.Type, r.Digest, r.Label) }

// mediaType is the form of names that registries accept (RFC 6838).
var mediaType = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*)/([A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*)$`)

// maxMediaTypePart bounds each of the two parts of such a name.
const maxMediaTypePart = 127

func isMediaType(name string) bool {
	m := mediaType.FindStringSubmatch(name)
	return m != nil && max(len(m[1]), len(m[2])) <= maxMediaTypePart
}

// ownTypes are attached by the commands that stand beside them, which check what
// they say.
var ownTypes = map[string]string{
	meta.TypeImage:       "push",
	meta.TypeMeta:        "push",
	meta.TypePromotion:   "promote",
	meta.TypeDeprecation: "deprecate",
	meta.TypeReframe:     "test",
}

func runAttach(ctx context.Context, in *invocation) (result, error) {
	kind := in.String("type")
	if kind == "" {
		return nil, usageError([]string{"attach"}, "--type is missing")
	}
	if other, ok := ownTypes[kind]; ok {
		return nil, fault.WithHint(fault.New(fault.Usage, "attach: %s cannot be attached by hand", kind), "use 'uenv-ci %s'", other)
	}
	if !isMediaType(kind) {
		err := fault.New(fault.Usage, "attach: %q is not an artifact type", kind)
		return nil, fault.WithHint(err, "it has the form of a media type, such as application/spdx+json")
	}
	l, err := in.label(0, in.build())
	if err != nil {
		return nil, err
	}
	layer, err := layerOf(in.arg(1))
	if err != nil {
		return nil, err
	}
	found, err := in.located(ctx, l)
	if err != nil {
		return nil, err
	}
	desc, err := image.Attach(ctx, found.Repo, found.Descriptor, image.Attachment{
		Type: kind, Layers: []registry.Layer{layer}, Created: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	return attachResult{found.Label, found.Descriptor.Digest, kind, desc.Digest}, nil
}

func layerOf(path string) (registry.Layer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return registry.Layer{}, fault.New(fault.NotFound, "attach: %w", err)
	}
	title := filepath.Base(filepath.Clean(path))
	if info.IsDir() {
		return registry.DirectoryLayer(title, os.DirFS(path), info.ModTime())
	}
	f, err := os.Open(path)
	if err != nil {
		return registry.Layer{}, err
	}
	defer f.Close()
	d, err := digest.SHA256.FromReader(f)
	return registry.FileLayer(path, title, d, info.Size()), err
}
