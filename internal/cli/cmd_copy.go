package cli

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/registry"
)

func copyCommand() *command {
	return &command{
		name: "copy", group: "Staff", writes: true, usage: "copy an image with everything attached to it",
		args: "SRC DST", minArgs: 2, maxArgs: 2,
		details: `Parts missing from DST are taken from SRC. The digest stays the same. Nothing is
checked, so images cannot be copied to the deploy namespace: use 'promote'.`,
		examples: `uenv-ci copy build::hello/1.0:42@daint%gh200 service::`,
		run:      runCopy,
	}
}

type copyResult struct {
	From   label.Label         `json:"from"`
	To     label.Label         `json:"to"`
	Digest digest.Digest       `json:"digest"`
	Report registry.CopyReport `json:"report"`
}

func (r copyResult) text(p *printer) {
	p.printf("%s  %s  %s moved", r.To, shortDigest(r.Digest.String()), event.FormatBytes(r.Report.Bytes))
}

func runCopy(ctx context.Context, in *invocation) (result, error) {
	found, err := in.locate(ctx, in.build())
	if err != nil {
		return nil, err
	}
	to, err := in.destination(1, found.Label)
	if err != nil {
		return nil, err
	}
	if err := in.refuseDeploy(to); err != nil {
		return nil, err
	}
	if to == found.Label {
		return nil, fault.New(fault.Usage, "copy: source and destination are the same")
	}
	repo, err := in.openRepository(to)
	if err != nil {
		return nil, err
	}
	report, err := image.Copy(ctx, found.Repo, found.Descriptor, repo, to.Tag, time.Now())
	if err != nil {
		return nil, err
	}
	return copyResult{found.Label, to, found.Descriptor.Digest, report}, nil
}

// destination reads argument i as a label whose missing parts are those of
// another.
func (in *invocation) destination(i int, from label.Label) (label.Label, error) {
	l, err := label.Parse(in.arg(i))
	if err != nil {
		return l, err
	}
	return in.complete(i, l, from)
}

// complete gives argument i, read as to, the parts of another label that it leaves
// out. A single word is a tag without its colon more often than another name, and what
// is released is never deleted: another name needs a version.
func (in *invocation) complete(i int, to, from label.Label) (label.Label, error) {
	if to.Name == "" || to.Name == from.Name || to.Version != "" {
		return pipeline.Complete(to, from), nil
	}
	err := fault.New(fault.Usage, "%s: %q would be another name of %s/%s, and has no version", in.Command.Name, in.arg(i), from.Name, from.Version)
	return to, fault.WithHint(err, "':%s' is a tag, '%s/%s' a name", to.Name, to.Name, from.Version)
}
