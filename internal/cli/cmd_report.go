package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/report"
	"uenv-ci.dev/internal/site"
)

func reportCommand() *command {
	return &command{
		name: "report", group: "Staff", usage: "show all images at a glance, and what needs attention",
		args: "[LABEL]", maxArgs: 1,
		details: `Shows the newest image of each uenv for each system, with its test results and how long it
is supported, then what needs attention: images that failed their tests or were never
tested, whose support ends, that a newer tag replaces, or that are missing. LABEL limits
the report, as in 'find'; all systems are shown unless it names one.

With several namespaces, images that were built but not promoted are listed too. What
should be in 'deploy' is what the matrix says (--matrix, or 'matrix:' in the site file);
without one, the newest version is expected where older ones are.

The data is that of 'find': the published index if there is one, as of its last rebuild.`,
		examples: `uenv-ci report
uenv-ci report --attention --namespace deploy,build --matrix config.yaml
uenv-ci report --html fleet.html --refresh
# what will be out of support in spring?
uenv-ci report prgenv-gnu --on 2027-04-01`,
		flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "namespace", Usage: "report on `NAMESPACE`; may be repeated (else that of LABEL, else deploy)"},
			&cli.StringFlag{Name: "matrix", Usage: "the matrix `FILE` that says what is deployed where (else that of the site file)"},
			&cli.BoolFlag{Name: "attention", Usage: "show only what needs attention; JSON and the page have all"},
			&cli.IntFlag{Name: "soon", Usage: "support ends soon if it does within `DAYS`", Value: 90},
			&cli.StringFlag{Name: "on", Usage: "judge support as on `DATE`, such as 2027-01-31 (else today)"},
			&cli.StringFlag{Name: "html", Usage: "also write the report to `FILE`, as a page that needs no other files"},
			&cli.BoolFlag{Name: "stamp", Usage: "write the current time into the page; without, it changes only with its content"},
			&cli.BoolFlag{Name: "refresh", Usage: "ask the registry, not the index or the cache"},
			&cli.BoolFlag{Name: "offline", Usage: "use the cache only"},
			&cli.BoolFlag{Name: "no-partials", Usage: "match whole names only"},
		},
		run: runReport,
	}
}

type reportResult struct {
	report.Report
	attention bool   // nothing else is shown
	nothing   string // said if there is no image
	page      string // file that was written; "" if none
}

func runReport(ctx context.Context, in *invocation) (result, error) {
	o, err := in.reportOptions()
	if err != nil {
		return nil, err
	}
	page := in.String("html")
	if page != "" {
		if err := atomicfile.Check(page); err != nil {
			return nil, fault.Wrap(fault.Failure, err, "write %s", page)
		}
	}
	reg, err := in.registryFor(o.Pattern)
	if err != nil {
		return nil, err
	}
	o.Registry = reg.String()
	r, err := pipeline.Report(ctx, reg, o)
	if err != nil {
		return nil, err
	}
	for _, n := range r.Namespaces {
		if len(n.Denied) > 0 {
			in.events.Warn("report", "left out repositories that these credentials may not read: %s", someOf(n.Denied))
		}
	}
	if page != "" {
		var written time.Time
		if in.Bool("stamp") {
			written = time.Now()
		}
		data, err := r.HTML(written)
		if err == nil {
			err = fault.Wrap(fault.Failure, atomicfile.WriteBytes(page, 0o644, data), "write %s", page)
		}
		if err != nil {
			return nil, err
		}
	}
	nothing := fmt.Sprintf("there is no image in %s of %s", strings.Join(o.Namespaces, ", "), reg)
	if in.arg(0) != "" {
		nothing = fmt.Sprintf("no image matches %s in %s of %s", in.arg(0), strings.Join(o.Namespaces, ", "), reg)
	}
	return reportResult{r, in.Bool("attention"), nothing, page}, nil
}

func (in *invocation) reportOptions() (o pipeline.ReportOptions, err error) {
	if in.Bool("stamp") && in.String("html") == "" {
		return o, usageError([]string{"report"}, "--stamp is for --html")
	}
	if o.Pattern, err = in.label(0, ""); err != nil {
		return o, err
	}
	if o.Pattern.Tag != "" {
		return o, usageError([]string{"report"}, "a report needs all tags of a uenv: leave out ':%s'", o.Pattern.Tag)
	}
	if o.Namespaces, err = in.reportNamespaces(o.Pattern); err != nil {
		return o, err
	}
	if o.Search, err = in.searchOptions(); err != nil {
		return o, err
	}
	if o.Plan, err = in.reportMatrix(); err != nil {
		return o, err
	}
	o.Released, o.Soon = in.deploy(), in.Int("soon")
	if o.Soon < 0 {
		return o, usageError([]string{"report"}, "--soon must not be negative")
	}
	o.Restricted = func(name string) bool { return in.site.Uenv(name).Restricted }
	o.Day = meta.Date{Time: time.Now().UTC().Truncate(24 * time.Hour)}
	if day := in.String("on"); day != "" {
		if o.Day, err = meta.ParseDate(day); err != nil {
			return o, fault.New(fault.Usage, "--on: %w", err)
		}
	}
	return o, nil
}

func (in *invocation) reportNamespaces(pattern label.Label) ([]string, error) {
	named := commaList(in.StringSlice("namespace"))
	seen := map[string]bool{}
	for _, n := range named {
		switch {
		case !label.Valid(n):
			return nil, fault.New(fault.Usage, "%q cannot be a namespace", n)
		case seen[n]:
			return nil, fault.New(fault.Usage, "--namespace names %s twice", n)
		case pattern.Namespace != "":
			return nil, fault.New(fault.Usage, "--namespace and the label's %s:: exclude each other", pattern.Namespace)
		}
		seen[n] = true
	}
	if len(named) > 0 {
		return named, nil
	}
	return []string{pattern.WithNamespace(in.deploy()).Namespace}, nil
}

// reportMatrix reads the matrix that is named. One of the site file that cannot be read
// keeps nobody from a report.
func (in *invocation) reportMatrix() (*site.Matrix, error) {
	path, err := in.site.Matrix.Or(in.String("matrix"))
	if path == "" && err == nil {
		return nil, nil
	}
	var m *site.Matrix
	if err == nil {
		m, err = site.LoadMatrix(path)
	}
	if err != nil && in.String("matrix") == "" {
		in.events.Warn("report", "what is missing is judged without the matrix: %v", err)
		return nil, nil
	}
	return m, err
}

func (r reportResult) text(p *printer) {
	for _, n := range r.Namespaces {
		if !r.attention && len(n.Uenvs) > 0 {
			r.namespace(p, n)
		}
	}
	r.notices(p)
	for _, n := range r.Namespaces {
		p.printf("%s: %s, %s", n.Name, totalsText(n.Totals), freshness(n))
	}
	if r.page != "" {
		p.printf("%s", r.page)
	}
}

func totalsText(t report.Totals) string {
	return fmt.Sprintf("%s with %s, %s", plural(t.Images, "image"), plural(t.Labels, "label"), event.FormatBytes(t.Bytes))
}

// freshness says from where the data is, and from when.
func freshness(n report.Namespace) string {
	return fmt.Sprintf("as of %s by the %s", n.At.Local().Format("2006-01-02 15:04"), n.From)
}

// namespace writes a line for each system of each version, and what is in the way of
// using the image below it: that would not fit beside it.
func (r reportResult) namespace(p *printer, n report.Namespace) {
	p.printf("%s", p.bold(n.Name))
	var widths cellWidths
	for _, t := range n.Targets {
		widths.target = max(widths.target, width(t.String()))
	}
	for _, u := range n.Uenvs {
		for _, c := range u.Cells {
			if c.Newest != nil {
				widths.tag = max(widths.tag, width(c.Newest.Tag))
			}
		}
	}
	for _, u := range n.Uenvs {
		title := u.Name + "/" + u.Version
		if u.Restricted {
			title += p.dim(" (restricted)")
		}
		p.printf("%s", title)
		for _, c := range u.Cells {
			widths.write(p, c)
		}
	}
	var rows [][]string
	for _, t := range n.Targets {
		rows = append(rows, []string{"  " + t.String(), fmt.Sprint(t.Totals.Images), event.FormatBytes(t.Totals.Bytes)})
	}
	if len(rows) > 1 {
		p.printf("")
		p.table([]string{"target", "images", "size"}, rows, 1, 2)
	}
	p.printf("")
}

// cellWidths are those of the columns that vary.
type cellWidths struct{ target, tag int }

func (w cellWidths) write(p *printer, c report.Cell) {
	where := fmt.Sprintf("  %-*s", w.target, c.System+"%"+c.UArch)
	t := c.Newest
	if t == nil {
		p.printf("%s  %s", where, p.yellow("missing"))
		return
	}
	older := ""
	if len(c.Older) > 0 {
		older = p.dim(fmt.Sprintf("  +%d older", len(c.Older)))
	}
	p.printf("%s  %-*s  %-10s  %8s  %s%s", where, w.tag, t.Tag, report.Day(t.Created), event.FormatBytes(t.Size), p.verdictOf(*t), older)
	if t.Problem != "" {
		p.printf("      %s", p.red(oneLine(t.Problem)))
	}
	if text := report.SupportText(*t); text != "" {
		p.printf("      %s", p.yellow(oneLine(text)))
	}
}

// lineWidth is that of the narrowest terminals.
const lineWidth = 80

// fewNotices is how many of a kind are shown beside everything else.
const fewNotices = 10

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// verdictOf is the verdict of an image with its counts, in colour.
func (p *printer) verdictOf(t report.Tagged) string {
	text := report.VerdictText(t)
	switch t.Verdict {
	case meta.Pass:
		return p.green(text)
	case meta.Fail:
		return p.red(text)
	}
	return p.yellow(text)
}

// notices writes what needs attention, a heading for each kind.
func (r reportResult) notices(p *printer) {
	if r.Totals.Labels == 0 && len(r.Attention) == 0 {
		p.printf("%s", r.nothing)
		return
	}
	if len(r.Attention) == 0 {
		p.printf("%s", p.green("nothing needs attention"))
	}
	for _, kind := range report.Kinds() {
		notices := r.Of(kind)
		if len(notices) == 0 {
			continue
		}
		heading := fmt.Sprintf("%s (%d)", kind.Title(), len(notices))
		p.printf("%s", p.bold(heading))
		shown := notices
		if !r.attention {
			shown = notices[:min(len(notices), fewNotices)]
		}
		for _, n := range shown {
			writeNotice(p, n)
		}
		if more := len(notices) - len(shown); more > 0 {
			p.printf("  %s", p.dim(fmt.Sprintf("and %d more: --attention shows all", more)))
		}
	}
	p.printf("")
}

// writeNotice writes a line, or two if it would be too long.
func writeNotice(p *printer, n report.Notice) {
	first := "  " + n.Label.String()
	if len(first)+2+width(tame(n.Text)) <= lineWidth {
		p.printf("%s  %s", first, p.dim(n.Text))
		return
	}
	p.printf("%s", first)
	p.printf("      %s", p.dim(n.Text))
}
