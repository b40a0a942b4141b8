package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

func findCommand() *command {
	return &command{
		name: "find", group: "Users", forUsers: true, usage: "list the images in the registry",
		args: "[LABEL]", maxArgs: 1,
		details: `A name matches all names that begin with it; an image's id or digest will do instead.
The default namespace is 'deploy'. The default system is this cluster, as named by the
uenv client's configuration or CLUSTER_NAME; '@*' means all.

If staff have published an index of the namespace ('catalog rebuild'), the list comes
from it, and changes show when it is published again. Otherwise it comes from the
registry and is cached for a minute; your own changes show at once. --refresh always
asks the registry.`,
		examples: `uenv-ci find
uenv-ci find prgenv-gnu@* --uarch gh200
uenv-ci find --package 'hdf5@1.14 +mpi'
uenv-ci find build::prgenv-gnu/25.11 --since 30d --sort date`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "uarch", Usage: "show only microarchitecture `A`, like %A in the label"},
			&cli.StringFlag{Name: "package", Usage: "show only images with a package matching the Spack `SPEC`, such as 'hdf5@1.14 +mpi'"},
			&cli.StringFlag{Name: "since", Usage: "show only images created since `DATE`, such as 2026-01-31 or 30d"},
			&cli.StringFlag{Name: "sort", Usage: "sort by `name|version|date|size`, newest and largest first; -date reverses"},
			&cli.BoolFlag{Name: "names", Usage: "show only labels, one per line: fastest"},
			&cli.BoolFlag{Name: "no-tests", Usage: "leave out test results and deprecations: faster without an index"},
			&cli.BoolFlag{Name: "refresh", Usage: "ask the registry, not the index or the cache"},
			&cli.BoolFlag{Name: "offline", Usage: "use the cache only"},
			&cli.BoolFlag{Name: "no-header", Usage: "leave out the heading"},
			&cli.BoolFlag{Name: "no-partials", Usage: "match whole names only"},
		},
		run: runFind,
	}
}

type findResult struct {
	catalog.Answer
	noHeader bool
	noTests  bool
	nothing  string // said if there is none
}

// namesResult is a list of labels.
type namesResult struct {
	Labels []string `json:"labels"`
}

func (r namesResult) text(p *printer) {
	for _, l := range r.Labels {
		p.printf("%s", l)
	}
}

func namesOf(records []catalog.Record) namesResult {
	r := namesResult{Labels: []string{}}
	for _, record := range records {
		r.Labels = append(r.Labels, record.Label.String())
	}
	return r
}

func runFind(ctx context.Context, in *invocation) (result, error) {
	w, err := in.wanted()
	if err != nil {
		return nil, err
	}
	reg, err := in.registryFor(w.pattern)
	if err != nil {
		return nil, err
	}
	a, err := catalog.Search(ctx, reg, w.pattern, w.options)
	if err != nil {
		return nil, err
	}
	if !w.since.IsZero() {
		a.Records = catalog.Since(a.Records, w.since)
	}
	if w.packages != nil {
		a.Records, err = catalog.WithPackage(ctx, reg, a.Records, *w.packages, catalog.PackageOptions{Cache: in.cacheDir("packages"), Events: in.events})
		if err != nil {
			return nil, err
		}
	}
	w.order.Sort(a.Records)
	in.tellAge(a)
	if len(a.Denied) > 0 {
		in.events.Info("find", "left out repositories that these credentials may not read: %s", someOf(a.Denied))
	}
	if in.Bool("names") {
		return namesOf(a.Records), nil
	}
	if a.Records == nil {
		a.Records = []catalog.Record{}
	}
	return findResult{a, in.Bool("no-header"), w.options.Depth != catalog.All, in.nothingFound(w.pattern, reg)}, nil
}

// wanted is what find looks for, and how.
type wanted struct {
	pattern  label.Label
	options  catalog.SearchOptions
	packages *catalog.Query // nil for any
	since    time.Time      // zero for any
	order    catalog.Order
}

func (in *invocation) wanted() (w wanted, err error) {
	if w.pattern, err = in.findPattern(); err != nil {
		return w, err
	}
	if w.order, err = catalog.ParseOrder(in.String("sort")); err != nil {
		return w, err
	}
	if w.since, err = in.since("since"); err != nil {
		return w, err
	}
	if spec := in.String("package"); spec != "" {
		query, err := catalog.ParseQuery(spec)
		if err != nil {
			return w, err
		}
		w.packages = &query
	}
	if w.options, err = in.searchOptions(); err != nil {
		return w, err
	}
	switch {
	case in.Bool("names") && w.packages == nil && w.since.IsZero() && !in.IsSet("sort"):
		w.options.Depth = catalog.Labels
	case in.Bool("names"), in.Bool("no-tests"):
		w.options.Depth = catalog.Images
	}
	return w, nil
}

// findPattern is the label to look for, with what the flags add to it.
func (in *invocation) findPattern() (label.Label, error) {
	pattern, err := in.hereLabel(0, in.deploy())
	if err != nil {
		return pattern, err
	}
	uarch := in.String("uarch")
	switch {
	case uarch == "":
	case !label.Valid(uarch):
		return pattern, fault.New(fault.Usage, "--uarch %q cannot be a microarchitecture", uarch)
	case pattern.UArch != "" && pattern.UArch != uarch:
		return pattern, fault.New(fault.Usage, "--uarch %s and the label's %%%s exclude each other", uarch, pattern.UArch)
	default:
		pattern.UArch = uarch
	}
	return pattern, nil
}

func (in *invocation) searchOptions() (catalog.SearchOptions, error) {
	if in.Bool("refresh") && in.Bool("offline") {
		return catalog.SearchOptions{}, fault.New(fault.Usage, "--refresh and --offline exclude each other")
	}
	listing, err := in.listing()
	return catalog.SearchOptions{
		Options: catalog.Options{Exact: in.Bool("no-partials")},
		Listing: listing, Cache: in.cacheDir("catalog"), Refresh: in.Bool("refresh"), Offline: in.Bool("offline"), Events: in.events,
	}, err
}

// tellAge reports when the answer is from, unless it is recent.
func (in *invocation) tellAge(a catalog.Answer) {
	if time.Since(a.At) > 2*time.Minute {
		in.events.Info("find", "as of %s, by the %s; --refresh asks the registry", a.At.Local().Format("2006-01-02 15:04"), a.Source)
	}
}

// nothingFound is the text for an empty answer.
func (in *invocation) nothingFound(pattern label.Label, reg *registry.Registry) string {
	text := fmt.Sprintf("no image matches %s in %s", pattern, reg)
	if spec := in.String("package"); spec != "" {
		text += ", with a package like " + spec
	}
	if since := in.String("since"); since != "" {
		text += ", made since " + since
	}
	if pattern.System != "" {
		text += " ('@*' stands for all systems)"
	}
	return text
}

func (r findResult) text(p *printer) {
	if len(r.Records) == 0 {
		p.printf("%s", r.nothing)
		return
	}
	header := []string{"uenv", "arch", "system", "id", "size", "created"}
	if !r.noTests {
		header = append(header, "tests", "")
	}
	packages := slices.ContainsFunc(r.Records, func(r catalog.Record) bool { return len(r.Packages) > 0 })
	if packages {
		header = append(header, "packages")
	}
	var rows [][]string
	for _, record := range r.Records {
		l := record.Label
		created, _, _ := strings.Cut(record.Created, "T")
		row := []string{fmt.Sprintf("%s/%s:%s", l.Name, l.Version, l.Tag), l.UArch, l.System, record.ID, event.FormatBytes(record.Size), created}
		if !r.noTests {
			row = append(row, p.verdicts(record.Results), p.remark(record))
		}
		if packages {
			row = append(row, strings.Join(record.Packages, ", "))
		}
		rows = append(rows, row)
	}
	p.listing(r.noHeader, header, rows, 4)
}

func (p *printer) verdicts(results []catalog.Result) string {
	var texts []string
	for _, r := range results {
		text := fmt.Sprintf("%s %d/%d", p.verdict(r.State), r.Counts.Passed, r.Counts.Total)
		if r.System != "" {
			text += "@" + r.System
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return p.dim(string(meta.Untested))
	}
	return strings.Join(texts, " ")
}

func (p *printer) remark(r catalog.Record) string {
	switch {
	case r.Problem != "":
		return p.red(r.Problem)
	case r.Deprecated:
		return p.yellow("deprecated")
	}
	return ""
}
