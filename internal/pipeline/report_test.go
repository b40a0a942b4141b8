package pipeline

import (
	"slices"
	"testing"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/site"
)

// An image is tested if it was on its own system; a verdict that nobody knows is none.
func TestReportedVerdict(t *testing.T) {
	l := label.Label{Namespace: "deploy", Name: "a", Version: "1", Tag: "v1", System: "daint", UArch: "gh200"}
	for _, c := range []struct {
		results []catalog.Result
		want    meta.State
		tested  string
	}{
		{nil, meta.Untested, ""},
		{[]catalog.Result{{System: "eiger", State: meta.Pass, When: "2026-01-01T00:00:00Z"}}, meta.Untested, ""},
		{[]catalog.Result{{System: "daint", State: meta.Fail, When: "2026-01-01T01:00:00+01:00"}, {System: "eiger", State: meta.Pass}}, meta.Fail, "2026-01-01T00:00:00Z"},
		{[]catalog.Result{{System: "daint", State: "perfect"}}, meta.Untested, ""},
		{[]catalog.Result{{State: meta.Untested}}, meta.Untested, ""}, // another tool's
	} {
		got := reported(catalog.Record{Label: l, Results: c.results, Created: "yesterday"})
		if got.Verdict != c.want || got.Tested != c.tested || got.Created != "" {
			t.Errorf("%+v: got %+v", c.results, got)
		}
	}
}

func TestWantedIsWhatTheMatrixDeploys(t *testing.T) {
	m := &site.Matrix{Versions: []site.MatrixVersion{
		{Uenv: "prgenv-gnu", Version: "25.11", Deploy: []site.MatrixDeploy{{System: "daint", UArchs: []string{"gh200"}}, {System: "balfrin", UArchs: []string{"a100", "zen3"}}}},
		{Uenv: "cp2k", Version: "2025.1", Deploy: []site.MatrixDeploy{{System: "daint", UArchs: []string{"gh200"}}}},
		{Uenv: "built", Version: "1", Recipes: []site.MatrixRecipe{{UArch: "gh200"}}},
	}}
	for pattern, want := range map[string][]string{
		"":                 {"prgenv-gnu/25.11@daint%gh200", "prgenv-gnu/25.11@balfrin%a100", "prgenv-gnu/25.11@balfrin%zen3", "cp2k/2025.1@daint%gh200"},
		"deploy::prgenv@*": {"prgenv-gnu/25.11@daint%gh200", "prgenv-gnu/25.11@balfrin%a100", "prgenv-gnu/25.11@balfrin%zen3"},
		"@daint":           {"prgenv-gnu/25.11@daint%gh200", "cp2k/2025.1@daint%gh200"},
	} {
		l, err := label.Parse(pattern)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range wanted(m, l, true) {
			got = append(got, w.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", pattern, got, want)
		}
	}
}
