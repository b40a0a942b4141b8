package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pipeline"
)

func inspectCommand() *command {
	return &command{
		name: "inspect", group: "Users", forUsers: true, takesLocal: true, usage: "show what is known about an image",
		args: "(LABEL|FILE) [PATH]", minArgs: 1, maxArgs: 2,
		details: `A label with a namespace is looked up in the registry, one without in the local
repository first. Only metadata is downloaded.

With PATH, a directory inside the image is listed, or a file written to standard
output. From a registry only the necessary parts are fetched; they cannot be checked
against the image's digest.`,
		examples: `uenv-ci inspect deploy::prgenv-gnu/25.11:v1@daint%gh200
uenv-ci inspect deploy::prgenv-gnu/25.11:v1@daint%gh200 meta/recipe
uenv-ci inspect ./store.squashfs --format json`,
		run: runInspect,
	}
}

type inspectResult struct {
	Label *label.Label `json:"label,omitempty"` // nil for a file
	Path  string       `json:"path,omitempty"`  // on disk
	catalog.About
}

func runInspect(ctx context.Context, in *invocation) (result, error) {
	if len(in.args) == 2 {
		return in.inspectInside(ctx)
	}
	if isPath(in.arg(0)) {
		return inspectFile(ctx, in.arg(0), in.events)
	}
	l, err := in.hereLabel(0, "")
	if err != nil {
		return nil, err
	}
	if l.Namespace == "" {
		if res, err := in.inspectLocal(ctx, l); res != nil || err != nil {
			return res, err
		}
	}
	found, err := in.located(ctx, l.WithNamespace(in.deploy()))
	if err != nil {
		return nil, err
	}
	about, err := catalog.Inspect(ctx, found.Repo, found.Descriptor)
	if err != nil {
		return nil, err
	}
	r := inspectResult{Label: &found.Label, About: about}
	if err := r.envInside(ctx, found); err != nil {
		return nil, err
	}
	return r, nil
}

// inspectLocal looks into the local repository; both results are nil if the
// image is not there.
func (in *invocation) inspectLocal(ctx context.Context, l label.Label) (result, error) {
	all, err := in.openLocals(ctx)
	if err != nil {
		return nil, nil
	}
	defer all.Close()
	local, records, err := all.lookup(ctx, l)
	if err != nil {
		return nil, nil
	}
	r := records[0]
	runnable, err := pipeline.LocalRunnable(local, r)
	if fault.KindOf(err) == fault.NotFound { // only its metadata is here, which is what is asked for
		runnable.Env, err = pipeline.LocalEnv(local, r)
	}
	if err != nil {
		return nil, err
	}
	return inspectResult{Label: &r.Label, Path: runnable.Path, About: catalog.About{
		Digest: r.Digest, ID: r.ID, Size: r.Size, Created: createdText(r.Date), Mount: runnable.Env.Mount, Env: &runnable.Env,
		Attachments: []catalog.Attached{},
	}}, nil
}

// createdText is a time as registries have it; "" if it is not known.
func createdText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func inspectFile(ctx context.Context, path string, events event.Sink) (result, error) {
	file, err := image.Stat(ctx, path)
	if err != nil {
		return nil, err
	}
	runnable, err := pipeline.FileRunnable(path, events)
	if err != nil {
		return nil, err
	}
	return inspectResult{Path: runnable.Path, About: catalog.About{
		Digest: file.Digest, ID: label.ID(file.Digest), Size: file.Size, Mount: runnable.Env.Mount, Env: &runnable.Env,
		Attachments: []catalog.Attached{},
	}}, nil
}

func (r inspectResult) text(p *printer) {
	title := r.Path
	if r.Label != nil {
		title = r.Label.String()
	}
	p.printf("%s", p.bold(title))
	field := func(name, value string) {
		if value != "" {
			p.printf("  %-10s %s", name, value)
		}
	}
	if r.Env != nil && r.Env.Description != "" {
		field("about", r.Env.Description)
	}
	field("mount", r.Mount)
	field("digest", r.Digest.String())
	field("size", event.FormatBytes(r.Size))
	field("created", r.Created)
	if r.Label != nil {
		field("path", r.Path)
	}
	field("key", r.Key)
	field("packed", r.Codec)
	if d := r.Deprecation; d != nil {
		p.printf("  %s", p.yellow("deprecated: "+deprecationText(d)))
	}
	r.views(p)
	r.evidence(p)
	r.origin(p)
	for _, problem := range r.Problems {
		p.printf("  %s", p.yellow("! "+problem))
	}
}

func (r inspectResult) views(p *printer) {
	if r.Env == nil || len(r.Env.Views) == 0 {
		return
	}
	p.printf("  views")
	var rows [][]string
	for _, name := range r.Env.ViewNames() {
		title := "    " + name
		if name == r.Env.DefaultView {
			title += " (default)"
		}
		rows = append(rows, []string{title, r.Env.Views[name].Description})
	}
	p.rows(rows, nil)
}

func (r inspectResult) evidence(p *printer) {
	for _, v := range r.Results {
		p.printf("  tested on %s: %s, %s (%s)", v.System, p.verdict(v.State), v.Reason, v.When.Format(time.DateOnly))
	}
	for _, promotion := range r.Promotions {
		p.printf("  promoted from %s by %s (%s)", promotion.From, promotion.Who, promotion.When.Format(time.DateOnly))
	}
	var types []string
	for _, a := range r.Attachments {
		types = append(types, a.Type)
	}
	if len(types) > 0 {
		p.printf("  attached: %s", strings.Join(slices.Compact(types), ", "))
	}
}
