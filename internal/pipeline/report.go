package pipeline

import (
	"context"
	"slices"
	"time"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/report"
	"uenv-ci.dev/internal/site"
)

// ReportOptions say what to report on.
type ReportOptions struct {
	report.Options
	Pattern    label.Label // which images; its namespace does not count
	Namespaces []string
	Search     catalog.SearchOptions
	Plan       *site.Matrix // what ought to be released; nil if nobody says so
}

// Report reports on namespaces of a registry, as the catalogue has them.
func Report(ctx context.Context, reg *registry.Registry, o ReportOptions) (report.Report, error) {
	var sources []report.Source
	for _, namespace := range o.Namespaces {
		pattern := o.Pattern
		pattern.Namespace = namespace
		a, err := catalog.Search(ctx, reg, pattern, o.Search)
		if err != nil {
			return report.Report{}, err
		}
		s := report.Source{Namespace: namespace, From: string(a.Source), At: a.At.UTC(), Denied: a.Denied}
		for _, r := range a.Records {
			s.Images = append(s.Images, reported(r))
		}
		sources = append(sources, s)
	}
	if o.Plan != nil {
		o.Matrix, o.Wanted = o.Plan.File, wanted(o.Plan, o.Pattern, !o.Search.Exact)
	}
	return report.Make(sources, o.Options), nil
}

// wanted lists what the matrix deploys, as far as the pattern names it.
func wanted(m *site.Matrix, pattern label.Label, prefix bool) []label.Label {
	pattern.Namespace = ""
	var all []label.Label
	for _, v := range m.Versions {
		for _, d := range v.Deploy {
			for _, uarch := range d.UArchs {
				l := label.Label{Name: v.Uenv, Version: v.Version, System: d.System, UArch: uarch}
				if l.Match(pattern, prefix) {
					all = append(all, l)
				}
			}
		}
	}
	return all
}

// reported is what a report needs of the catalogue's record.
func reported(r catalog.Record) report.Image {
	i := report.Image{
		Label: r.Label, Digest: r.Digest, Size: r.Size, Created: normalTime(r.Created),
		Deprecated: r.Deprecated, Deprecation: r.Deprecation, Problem: r.Problem,
	}
	own := slices.IndexFunc(r.Results, func(v catalog.Result) bool { return v.System == r.Label.System })
	if own >= 0 {
		v := r.Results[own]
		i.Verdict, i.Tests, i.Tested = v.State, v.Counts, normalTime(v.When)
	}
	if i.Verdict != meta.Pass && i.Verdict != meta.Fail && i.Verdict != meta.Waived {
		i.Verdict = meta.Untested // whatever the annotation says
	}
	return i
}

// normalTime makes the order of texts that of times; "" is what is no time.
func normalTime(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
