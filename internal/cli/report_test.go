package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/report"
)

// Many notices of a kind do not hide the others, unless they are asked for; and what a
// registry says stays on its line.
func TestReportText(t *testing.T) {
	var images []report.Image
	for i := range 25 {
		l := label.Label{Namespace: "deploy", Name: fmt.Sprintf("prgenv-nvfortran-openmpi%d", i), Version: "25.11", Tag: "v1", System: "clariden", UArch: "gh200"}
		images = append(images, report.Image{Label: l, Digest: digest.FromString(l.String()), Size: 3_900_000_000, Created: "2026-01-01T00:00:00Z"})
	}
	images[0].Deprecated, images[0].Deprecation = true, &meta.Deprecation{Reason: "old", Replacement: "x\n\x1b[2Jdeploy: nothing"}
	r := reportResult{Report: report.Make([]report.Source{{Namespace: "deploy", Images: images}}, report.Options{Released: "deploy"})}
	for attention, want := range map[bool][]string{
		false: {"Untested (25)", "and 15 more: --attention shows all", "\nprgenv-nvfortran-openmpi24/25.11\n"},
		true:  {"Untested (25)", "  deploy::prgenv-nvfortran-openmpi24/25.11:v1@clariden%gh200\n      no test ran on clariden\n"},
	} {
		var out bytes.Buffer
		p := newPrinter(&out, nil)
		r.attention = attention
		r.text(p)
		p.flush()
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("attention %v: no %q in\n%s", attention, w, out.String())
			}
		}
		for line := range strings.Lines(out.String()) {
			if width(strings.TrimSuffix(line, "\n")) > lineWidth || strings.HasPrefix(line, "deploy: nothing") {
				t.Errorf("attention %v: %q", attention, line)
			}
		}
		if got := strings.Contains(out.String(), "more:"); got == attention {
			t.Errorf("attention %v:\n%s", attention, out.String())
		}
	}
}
