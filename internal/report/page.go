package report

import (
	"bytes"
	_ "embed" // the page
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
)

//go:embed page.html
var pageText string

// page is what the template shows.
type page struct {
	Report
	Title  string
	Stamp  string
	Groups []group
}

// group is what needs attention for one reason.
type group struct {
	Kind    Kind
	Title   string
	Class   string
	Open    bool // shown at once
	Notices []Notice
}

// mostOpen is how many notices of a kind are shown at once.
const mostOpen = 20

// HTML writes the report as a page that needs nothing else. It is the same for the
// same report, unless a time of writing is given.
func (r Report) HTML(written time.Time) ([]byte, error) {
	p := page{Report: r, Title: r.title()}
	if !written.IsZero() {
		p.Stamp = written.UTC().Format("2006-01-02 15:04 UTC")
	}
	for _, kind := range Kinds() {
		if notices := r.Of(kind); len(notices) > 0 {
			open := kind != KindDeprecated && kind != KindSuperseded && len(notices) <= mostOpen
			p.Groups = append(p.Groups, group{kind, kind.Title(), kind.class(), open, notices})
		}
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"bytes": event.FormatBytes, "day": Day, "plural": plural, "cell": cellAt,
		"anchor": anchor, "place": placeAnchor, "verdict": VerdictText, "class": verdictClass, "support": SupportText,
	}).Parse(pageText)
	var out bytes.Buffer
	if err == nil {
		err = t.Execute(&out, p)
	}
	return out.Bytes(), fault.Wrap(fault.Failure, err, "write the page")
}

func (r Report) title() string {
	var names []string
	for _, n := range r.Namespaces {
		names = append(names, n.Name)
	}
	return "User environments: " + strings.Join(names, ", ")
}

// Title is the kind in words.
func (k Kind) Title() string {
	return map[Kind]string{
		KindUnusable: "Cannot be used", KindFailing: "Tests failed", KindExpired: "Support has ended", KindExpiring: "Support ends soon",
		KindMissing: "Missing", KindUntested: "Untested", KindUnpromoted: "Not promoted", KindDeprecated: "Deprecated", KindSuperseded: "Superseded by a newer tag",
	}[k]
}

// class is the style of a kind.
func (k Kind) class() string {
	switch k {
	case KindUnusable, KindFailing, KindExpired:
		return "bad"
	case KindDeprecated, KindSuperseded:
		return "dim"
	}
	return "warn"
}

// VerdictText is a verdict with what it is based on.
func VerdictText(t Tagged) string {
	if t.Tests.Total == 0 {
		return string(t.Verdict)
	}
	return fmt.Sprintf("%s %d/%d", t.Verdict, t.Tests.Passed, t.Tests.Total)
}

func verdictClass(t Tagged) string {
	switch t.Verdict {
	case meta.Pass:
		return "good"
	case meta.Fail:
		return "bad"
	}
	return "warn"
}

// SupportText says how long an image is supported; "" if nothing is said.
func SupportText(t Tagged) string {
	var text string
	switch {
	case t.Support == Supported:
		return ""
	case t.Support == Expired:
		text = fmt.Sprintf("deprecated, support ended %s", t.Until)
	case t.Until != nil:
		text = fmt.Sprintf("deprecated, supported until %s", t.Until)
	default:
		text = "deprecated"
	}
	if t.ReplacedBy != "" {
		text += ", use " + t.ReplacedBy
	}
	return text
}

// Class is the style of a state of support.
func (s Support) Class() string {
	if s == Expired {
		return "bad"
	}
	return "warn"
}

// Day is the day of a time.
func Day(created string) string {
	if created == "" {
		return "undated"
	}
	text, _, _ := strings.Cut(created, "T")
	return text
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func cellAt(u Uenv, t Target) *Cell {
	i := slices.IndexFunc(u.Cells, func(c Cell) bool { return c.System == t.System && c.UArch == t.UArch })
	if i < 0 {
		return nil
	}
	return &u.Cells[i]
}

// anchor is the name of a label's cell in the page.
func anchor(l label.Label) string {
	return strings.Join([]string{l.Namespace, l.Name, l.Version, l.System, l.UArch}, "~") // which no label has
}

func placeAnchor(namespace string, u Uenv, t Target) string {
	return anchor(label.Label{Namespace: namespace, Name: u.Name, Version: u.Version, System: t.System, UArch: t.UArch})
}
