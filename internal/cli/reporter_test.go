package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"uenv-ci.dev/internal/event"
)

// A bar that is wider than its terminal fills it with lines instead of one.
func TestBarsFitTheTerminal(t *testing.T) {
	for _, e := range []event.Event{
		{Stage: "pull", Unit: "B", Total: 999e9},
		{Stage: "build", Message: "prgenv-gnu: gcc-runtime, openmpi, hdf5, netcdf-c and 12 more", Unit: "packages", Total: 345},
		{Stage: "verify", Unit: "inodes", Total: 1234567},
	} {
		for _, columns := range []int{24, 40, 60, 80, 200} {
			var shown bytes.Buffer
			for _, part := range []int64{1, 3, 50, 99} {
				e.Done = e.Total * part / 100
				if err := newBar(&shown, e, columns).Set64(e.Done); err != nil { // the first time is shown at once
					t.Fatal(err)
				}
			}
			if !strings.Contains(shown.String(), "8% |") && !strings.Contains(shown.String(), "99% |") {
				t.Errorf("nothing is shown of %s: %q", e.Stage, shown.String())
			}
			for line := range strings.SplitSeq(shown.String(), "\r") {
				if n := utf8.RuneCountInString(strings.TrimSpace(line)); n >= columns {
					t.Errorf("%d columns of %d: %q", n, columns, line)
				}
			}
		}
	}
}
