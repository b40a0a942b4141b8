package cli

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
)

// publishFlags say what is done with the image that was built.
func publishFlags() []cli.Flag {
	return append(limitFlags(),
		&cli.BoolFlag{Name: "push", Usage: "publish the image under LABEL"},
		&cli.BoolFlag{Name: "rebuild", Usage: "with --push: build even if the registry already has the image"},
		&cli.BoolFlag{Name: "per-change", Usage: "with --push: keep the image's key apart from those that jobs on protected refs trust (the default in a GitLab job on an unprotected ref; --per-change=false turns it off)"},
		&cli.BoolFlag{Name: "verify-reproducible", Usage: "build twice, the second time without build caches, and fail if files differ"},
		&cli.StringFlag{Name: "report", Usage: "write the build report to `FILE` (else build-report.json beside the image, or in the working directory)"},
	)
}

func (in *invocation) buildImageOptions(ctx context.Context, l label.Label) (pipeline.BuildImageOptions, error) {
	o := pipeline.BuildImageOptions{Out: in.imageFile(), Versions: buildVersions(), Invocation: in.getenv("CI_JOB_URL")}
	var err error
	if o.Build, err = in.buildOptions(ctx, l.System, l.UArch); err != nil {
		return o, err
	}
	if o.Pack, err = in.packOptions(ctx, o.Build.Recipe); err != nil {
		return o, err
	}
	o.Pack.Base = in.lastImage(ctx, l, o.Pack)
	o.Build.Events = o.Pack.Events
	if err := in.limit(&o.Build, l, in.reportFile()); err != nil {
		return o, err
	}
	o.Verify = in.Bool("verify-reproducible")
	o.Unpublished = unpublishedFile(l, in.reportFile())
	o.ReportFile, o.ReportAlways = in.reportFile(), in.String("report") != ""
	o.Key = pipeline.KeyOptions{
		Variables: in.buildVariables(), PerChange: in.perChange(), Rebuild: in.Bool("rebuild"),
		// Nobody waits for git servers to know a key that nothing is done with.
		Offline: in.Bool("offline") || in.Bool("air-gapped") || !in.Bool("push") && in.String("report") == "",
	}
	if in.Bool("push") {
		o.Push, err = in.registryFor(l)
	}
	return o, err
}

// unpublishedFile is where an image is kept that could not be published: beside the report.
func unpublishedFile(l label.Label, report string) string {
	name := strings.Join([]string{"unpublished", l.Name, l.Version, l.Tag, l.System, l.UArch}, "-") + ".squashfs"
	return filepath.Join(filepath.Dir(report), name)
}

// lastImage returns an image in a local repository to use as the base of the new one. It
// only saves time, so on any error there is none.
func (in *invocation) lastImage(ctx context.Context, l label.Label, pack image.PackOptions) string {
	repos, err := in.openLocals(ctx)
	if err != nil {
		return ""
	}
	defer repos.Close()
	for _, local := range repos {
		if path, err := pipeline.LastImage(ctx, local, l); err == nil && path != "" && image.Alike(path, pack) {
			return path
		}
	}
	return ""
}

// perChange tells whether this is a job of a change that nobody has accepted.
func (in *invocation) perChange() bool {
	if in.IsSet("per-change") {
		return in.Bool("per-change")
	}
	return in.getenv("GITLAB_CI") == "true" && in.getenv("CI_COMMIT_REF_PROTECTED") != "true"
}

// reportFile says where the build report goes.
func (in *invocation) reportFile() string {
	return cmp.Or(in.String("report"), filepath.Join(filepath.Dir(in.imageFile()), pipeline.BuildReportFile))
}

// imageFile says where the image goes; "" is nowhere but into the registry.
func (in *invocation) imageFile() string {
	if out := in.String("out"); out != "" || in.Bool("push") {
		return out
	}
	return meta.ImageTitle
}

// buildVersions are those of this program that provenance tells.
func buildVersions() map[string]string {
	version := buildVersion()
	versions := map[string]string{"uenv-ci": version.Version}
	if version.Revision != "" {
		versions["revision"] = version.Revision
	}
	return versions
}

// unpublished adds to an error how to publish an image that was built but not
// published.
func (in *invocation) unpublished(built pipeline.BuildReport, err error) error {
	if err == nil || !in.Bool("push") || built.Pushed != nil || built.Image.Path == "" {
		return err
	}
	command := []string{"uenv-ci", "push", built.Image.Path, built.Label.String(), "--report", in.reportFile()}
	if registry := in.String("registry"); registry != "" {
		command = append(command, "--registry", registry)
	}
	return fmt.Errorf("%w\nthe image is built and kept; this publishes it:\n  %s", err, strings.Join(command, " "))
}
