package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/lifecycle"
	"uenv-ci.dev/internal/pipeline"
)

func deleteCommand() *command {
	return &command{
		name: "delete", group: "Staff", writes: true, usage: "delete an image from the registry",
		args: "LABEL", minArgs: 1, maxArgs: 1,
		details: `Only shows what would be deleted, unless --yes is given. Deleting the last label of an
image deletes the image, everything attached to it, and its entry by content key;
otherwise only the label is deleted. Promoted images are never deleted, whatever
namespace they are in, nor is anything in the deploy namespace: use 'deprecate' there.
The default namespace is 'build'. Registries free the space by garbage collection; some
do not allow deletion at all.`,
		examples: `# what would be deleted
uenv-ci delete prgenv-gnu/25.11:2078663062@daint%gh200
uenv-ci delete prgenv-gnu/25.11:2078663062@daint%gh200 --yes`,
		flags: []cli.Flag{yesFlag()},
		run:   runDelete,
	}
}

func pruneCommand() *command {
	return &command{
		name: "prune", group: "Staff", writes: true, usage: "delete old images of a namespace from the registry",
		args: "[LABEL]", maxArgs: 1,
		details: `Only shows what would be deleted, unless --yes is given. An image is deleted if neither
its publication nor anything attached to it (test results, records) is newer than
--older-than, and if it is not among the newest of its name and version (--keep).
Promoted images are never deleted, as with 'delete', nor is anything listed by an index
or anything that is not a uenv image. A name matches all names that begin with it; the
default namespace is 'build'.`,
		examples: `# what would be deleted
uenv-ci prune --older-than 30d
uenv-ci prune 'build::prgenv-gnu@*' --older-than 30d --keep 3 --yes`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "older-than", Usage: "delete images older than `TIME`, such as 30d; at least 1d"},
			&cli.IntFlag{Name: "keep", Value: 1, Usage: "keep the newest `N` images of each name, version, system and microarchitecture"},
			yesFlag(),
		},
		run: runPrune,
	}
}

func repairCommand() *command {
	return &command{
		name: "repair", group: "Staff", writes: true, usage: "restore lost attachments of an image",
		args: "LABEL [DIGEST…]", minArgs: 1, maxArgs: -1,
		details: `On registries without the referrers API, attachments are kept in a list. If two hosts
write it at once, one entry can get lost, though not the attachment itself. This
restores what is attached to the same image in other namespaces, and what is given by
its digest, as shown by 'attach', 'test' and 'deprecate'. The default namespace is
'build'.`,
		examples: `uenv-ci repair deploy::prgenv-gnu/25.11:v1@daint%gh200
uenv-ci repair prgenv-gnu/25.11:2078663062@daint%gh200 sha256:92058f4fbe658e7d0c02bd4bdfea652efe57685e7efa12353f673a74b9307c1e`,
		flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "namespace", Usage: "look for attachments only in `NAMESPACE`; may be repeated (else deploy, build, service)"},
		},
		run: runRepair,
	}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "really delete, instead of only showing what would be deleted"}
}

type deletionResult pipeline.Deletion

func runDelete(ctx context.Context, in *invocation) (result, error) {
	l, err := in.fullLabel(0, in.build())
	if err == nil {
		err = in.refuseDeletion(l)
	}
	if err != nil {
		return nil, err
	}
	reg, err := in.registryFor(l)
	if err != nil {
		return nil, err
	}
	d, err := pipeline.Delete(ctx, reg, l, !in.Bool("yes"))
	if err != nil {
		return nil, fmt.Errorf("delete %s: %w", l, err)
	}
	return deletionResult(d), nil
}

// refuseDeletion protects the namespace that users see, and also the one of the default
// name: a site file found in a checkout must not give that away.
func (in *invocation) refuseDeletion(l label.Label) error {
	if l.Namespace != in.deploy() && l.Namespace != "deploy" {
		return nil
	}
	err := fault.New(fault.Refused, "%s: users may have images of the namespace %s", in.Command.Name, l.Namespace)
	return fault.WithHint(err, "'uenv-ci deprecate' tells them to stop using an image")
}

func runPrune(ctx context.Context, in *invocation) (result, error) {
	pattern, err := in.label(0, in.build())
	if err == nil {
		err = in.refuseDeletion(pattern)
	}
	if err != nil {
		return nil, err
	}
	age, err := in.days("older-than")
	switch {
	case err != nil:
		return nil, err
	case age == 0:
		return nil, usageError([]string{"prune"}, "--older-than is missing")
	case age < pipeline.LeastAge:
		return nil, fault.New(fault.Usage, "--older-than must be at least 1d: younger images may still be being published")
	case in.Int("keep") < 0:
		return nil, fault.New(fault.Usage, "--keep cannot be negative")
	case pattern.Tag != "":
		return nil, fault.WithHint(fault.New(fault.Usage, "prune looks at all tags of a name"), "'uenv-ci delete' deletes one")
	}
	reg, err := in.registryFor(pattern)
	if err != nil {
		return nil, err
	}
	d, err := pipeline.Prune(ctx, reg, pattern, pipeline.PruneOptions{
		Retention: lifecycle.Retention{OlderThan: age, Keep: in.Int("keep"), Now: time.Now()}, Dry: !in.Bool("yes"), Events: in.events,
	})
	if err != nil {
		return deletionResult(d), fmt.Errorf("prune: %w", err)
	}
	return deletionResult(d), nil
}

func (r deletionResult) text(p *printer) {
	var rows [][]string
	for _, d := range r.Images {
		what := d.Repository + ":" + strings.Join(d.Tags, ",")
		if len(d.Tags) == 0 {
			what = d.Repository + " " + p.dim("without a tag")
		}
		remark := plural(len(d.Attached), "attachment")
		if len(d.Stays) > 0 {
			remark = "only the label: the image is also " + strings.Join(d.Stays, ", ")
		}
		made := "-"
		if !d.Newest.IsZero() {
			made = formatDate(d.Newest)
		}
		rows = append(rows, []string{what, shortDigest(d.Digest.String()), event.FormatBytes(d.Bytes), made, remark})
	}
	p.rows(rows, []int{2})
	verb := "deleted"
	if r.DryRun {
		verb = "would delete"
	}
	p.printf("%s %s, %s", verb, plural(len(r.Images), "image"), event.FormatBytes(r.Bytes))
	if r.DryRun && len(r.Images) > 0 {
		p.printf("%s", p.dim("nothing was changed: use --yes to delete"))
	}
}

type repairResult pipeline.Relisted

func runRepair(ctx context.Context, in *invocation) (result, error) {
	var given []digest.Digest
	for _, text := range in.args[1:] {
		d, err := digest.Parse(text)
		if err != nil {
			return nil, fault.New(fault.Usage, "%q is not a digest: %w", text, err)
		}
		given = append(given, d)
	}
	found, err := in.locate(ctx, in.build())
	if err != nil {
		return nil, err
	}
	reg, err := in.registryFor(found.Label)
	if err != nil {
		return nil, err
	}
	r, err := pipeline.Relist(ctx, reg, found, in.namespaces(), given)
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w", found.Label, err)
	}
	return repairResult(r), nil
}

func (r repairResult) text(p *printer) {
	if r.Restored == 0 {
		p.printf("%s  nothing is missing as far as known: %s", r.Label, plural(r.Listed, "attachment"))
		return
	}
	p.printf("%s  %s restored, %s now", r.Label, plural(r.Restored, "attachment"), plural(r.Listed, "attachment"))
}
