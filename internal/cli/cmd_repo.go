package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/pipeline"
)

func repoCommand() *command {
	return &command{
		name: "repo", group: "Users", forUsers: true, usage: "maintain the local repository",
		sub: []*command{
			{
				name: "status", usage: "summarise images, space and problems", run: runRepoStatus,
				examples: "uenv-ci repo status --format json",
			},
			{
				name: "verify", usage: "check the images against their digests", args: "[LABEL…]", maxArgs: -1, run: runRepoVerify,
				details: `Every image is read completely. The exit code is 1 if some are missing, truncated or
corrupt; 'repo repair' fixes them.`,
				examples: `uenv-ci repo verify
uenv-ci repo verify prgenv-gnu/25.11 --format json`,
				flags: []cli.Flag{&cli.BoolFlag{Name: "quick", Usage: "compare sizes only"}},
			},
			{
				name: "repair", usage: "fetch again what is missing, truncated or corrupt", args: "[LABEL…]", maxArgs: -1, run: runRepoRepair,
				details: `Images are looked up by digest in the registry's namespaces. If another client has
pulled an image without keeping its manifest, the manifest is added, so that the image
can be verified from then on.`,
				examples: `uenv-ci repo repair
uenv-ci repo repair prgenv-gnu/25.11 --quick`,
				flags: []cli.Flag{
					&cli.StringSliceFlag{Name: "namespace", Usage: "look only in `NAMESPACE`; may be repeated (else deploy, build, service)"},
					&cli.BoolFlag{Name: "quick", Usage: "trust images that have the right size"},
					stripesFlag(),
				},
			},
			{
				name: "prune", usage: "remove what is no longer needed", run: runRepoPrune,
				details: `Removes images without a label, leftovers of killed processes, and old lock files.
Recent ones are kept, since they may be about to be used.`,
				examples: `uenv-ci repo prune --dry-run
uenv-ci repo prune --unused 90d`,
				flags: []cli.Flag{
					&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "only show what would be removed"},
					&cli.StringFlag{Name: "unused", Usage: "also remove images not used for `TIME`, such as 90d"},
					&cli.BoolFlag{Name: "all", Usage: "also remove recent leftovers, such as interrupted downloads"},
				},
			},
			{
				name: "du", usage: "show the disk usage of each image", run: runRepoDu,
				examples: `uenv-ci repo du --unused 90d`,
				flags:    []cli.Flag{&cli.StringFlag{Name: "unused", Usage: "show only images not used for `TIME`, such as 90d"}},
			},
		},
	}
}

// reading opens the local repository that commands about one repository mean.
func (in *invocation) reading(ctx context.Context) (*localrepo.Repo, error) {
	return in.openLocal(ctx, localrepo.Options{ReadOnly: true})
}

type repoStatus localrepo.Status

func runRepoStatus(ctx context.Context, in *invocation) (result, error) {
	local, err := in.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer local.Close()
	s, err := local.Status(ctx)
	return repoStatus(s), err
}

func (r repoStatus) text(p *printer) {
	state := "writable"
	if !r.Writable {
		state = "read-only"
	}
	if r.FileSystem == "lustre" {
		state += ", on Lustre"
	}
	p.printf("%s  %s", p.bold(r.Path), p.dim(state))
	p.printf("  %-9s %s under %s, %s", "images", plural(r.Images, "image"), plural(r.Labels, "label"), event.FormatBytes(r.Bytes))
	space := "unknown"
	if r.Space.Free >= 0 {
		space = event.FormatBytes(r.Space.Free)
	}
	if r.Space.Quota >= 0 {
		space += fmt.Sprintf(", your quota leaves %s", event.FormatBytes(r.Space.Quota))
	}
	p.printf("  %-9s %s", "free", space)
	if r.Reclaim > 0 {
		p.printf("  %-9s %s, by 'uenv-ci repo prune'", "to free", event.FormatBytes(r.Reclaim))
	}
	var bad []string
	for condition, n := range r.Bad {
		bad = append(bad, fmt.Sprintf("%d %s", n, condition))
	}
	slices.Sort(bad)
	if len(bad) > 0 {
		p.printf("  %-9s %s", "wrong", p.red(strings.Join(bad, ", ")))
	}
}

// digests returns the images that the arguments name; nil without arguments.
func (in *invocation) digests(ctx context.Context, local *localrepo.Repo) ([]digest.Digest, error) {
	var found []digest.Digest
	for i := range in.args {
		l, err := in.label(i, "")
		if err != nil {
			return nil, err
		}
		l.Namespace = ""
		records, err := local.Find(ctx, l, false)
		if err != nil {
			return nil, err
		}
		if len(records) == 0 {
			return nil, fault.New(fault.NotFound, "%s is not in the local repository %s", l, local.Dir())
		}
		for _, r := range records {
			found = append(found, r.Digest)
		}
	}
	return found, nil
}

type verifiedResult struct {
	Path   string              `json:"path"`
	Images []localrepo.Finding `json:"images"`
}

func runRepoVerify(ctx context.Context, in *invocation) (result, error) {
	local, err := in.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer local.Close()
	only, err := in.digests(ctx, local)
	if err != nil {
		return nil, err
	}
	findings, err := local.Verify(ctx, localrepo.VerifyOptions{Quick: in.Bool("quick"), Only: only})
	if err != nil {
		return nil, err
	}
	bad := 0
	for _, f := range findings {
		if f.Bad() {
			bad++
		}
	}
	r := verifiedResult{local.Dir(), append([]localrepo.Finding{}, findings...)}
	if bad == 0 {
		return r, nil
	}
	err = fault.New(fault.Failure, "%s of %d in %s must be repaired", plural(bad, "image"), len(findings), local.Dir())
	return r, fault.WithHint(err, "'uenv-ci repo repair' does that")
}

func (r verifiedResult) text(p *printer) {
	if len(r.Images) == 0 {
		p.printf("no images in %s", r.Path)
	}
	var rows [][]string
	for _, f := range r.Images {
		rows = append(rows, []string{p.mark(!f.Bad()), f.ID, string(f.Condition), labelsText(f.Labels), p.dim(f.Detail)})
	}
	p.rows(rows, nil)
}

type repairedResult struct {
	Path   string              `json:"path"`
	Images []pipeline.Repaired `json:"images"`
}

func runRepoRepair(ctx context.Context, in *invocation) (result, error) {
	local, err := in.openLocal(ctx, localrepo.Options{})
	if err != nil {
		return nil, err
	}
	defer local.Close()
	only, err := in.digests(ctx, local)
	if err != nil {
		return nil, err
	}
	reg, err := in.openRegistry()
	if err != nil {
		return nil, err
	}
	repaired, err := pipeline.Repair(ctx, reg, local, pipeline.RepairOptions{
		Namespaces: in.namespaces(), Quick: in.Bool("quick"), Only: only, Events: in.events, Open: in.registryFor,
	})
	if err != nil {
		return nil, err
	}
	left := 0
	for _, r := range repaired {
		if r.Bad() && !r.Repaired {
			left++
		}
	}
	r := repairedResult{local.Dir(), repaired}
	if left == 0 {
		return r, nil
	}
	err = fault.New(fault.NotFound, "%s in %s could not be repaired: %s does not have them", plural(left, "image"), local.Dir(), reg)
	return r, fault.WithHint(err, "name other namespaces with --namespace, or remove them with 'uenv-ci rm ID'")
}

func (r repairedResult) text(p *printer) {
	if len(r.Images) == 0 {
		p.printf("nothing to repair in %s", r.Path)
	}
	var rows [][]string
	for _, f := range r.Images {
		rows = append(rows, []string{p.mark(f.Repaired), f.ID, "was " + string(f.Condition), f.Note, labelsText(f.Labels)})
	}
	p.rows(rows, nil)
}

type prunedResult struct {
	Path    string               `json:"path"`
	DryRun  bool                 `json:"dry_run"`
	Removed []localrepo.Leftover `json:"removed"`
	Bytes   int64                `json:"bytes"`
}

func runRepoPrune(ctx context.Context, in *invocation) (result, error) {
	o := localrepo.PruneOptions{Dry: in.Bool("dry-run"), All: in.Bool("all")}
	var err error
	if o.Unused, err = in.days("unused"); err != nil {
		return nil, err
	}
	local, err := in.openLocal(ctx, localrepo.Options{ReadOnly: o.Dry})
	if err != nil {
		return nil, err
	}
	defer local.Close()
	gone, err := local.Prune(ctx, o)
	r := prunedResult{Path: local.Dir(), DryRun: o.Dry, Removed: append([]localrepo.Leftover{}, gone...)}
	for _, l := range gone {
		r.Bytes += l.Bytes
	}
	return r, err
}

func (r prunedResult) text(p *printer) {
	var rows [][]string
	for _, l := range r.Removed {
		what := l.Path
		if what == "" {
			what = "a row of the database"
		}
		remark := ""
		if l.LastUsed != nil {
			remark = fmt.Sprintf("%s, last used %s", labelsText(l.Labels), formatDate(*l.LastUsed))
		}
		rows = append(rows, []string{l.Kind, event.FormatBytes(l.Bytes), what, remark})
	}
	p.rows(rows, []int{1})
	verb := "freed"
	if r.DryRun {
		verb = "would free"
	}
	if len(r.Removed) == 0 {
		p.printf("nothing to prune in %s", r.Path)
		return
	}
	p.printf("%s %s", verb, event.FormatBytes(r.Bytes))
}

type duResult struct {
	Path   string            `json:"path"`
	Bytes  int64             `json:"bytes"`
	Images []localrepo.Usage `json:"images"`
}

func runRepoDu(ctx context.Context, in *invocation) (result, error) {
	unused, err := in.days("unused")
	if err != nil {
		return nil, err
	}
	local, err := in.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer local.Close()
	all, err := local.Du(ctx)
	if err != nil {
		return nil, err
	}
	r := duResult{Path: local.Dir(), Images: []localrepo.Usage{}}
	for _, u := range all {
		if unused == 0 || time.Since(u.LastUsed) >= unused {
			r.Images = append(r.Images, u)
			r.Bytes += u.Bytes
		}
	}
	return r, nil
}

func (r duResult) text(p *printer) {
	var rows [][]string
	for _, u := range r.Images {
		rows = append(rows, []string{event.FormatBytes(u.Bytes), u.ID, formatDate(u.LastUsed), string(u.Condition), labelsText(u.Labels)})
	}
	p.table([]string{"size", "id", "last used", "condition", "labels"}, rows, 0)
	p.printf("%s in %s", event.FormatBytes(r.Bytes), r.Path)
}
