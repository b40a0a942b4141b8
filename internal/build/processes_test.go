package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/event"
)

func TestShareJobs(t *testing.T) {
	for _, test := range []struct {
		jobs, width int
		want        []int
	}{
		{1, 9, []int{1}}, {8, 0, []int{8}}, {8, 1, []int{8}}, {2, 3, []int{1, 1}}, {4, 3, []int{2, 2}}, {8, 2, []int{4, 4}},
		{8, 99, []int{3, 3, 2}}, {64, 99, []int{8, 8, 8, 8, 8, 8, 8, 8}},
	} {
		if got := shareJobs(test.jobs, test.width); !slices.Equal(got, test.want) {
			t.Errorf("%d jobs, %d packages: %v", test.jobs, test.width, got)
		}
	}
}

// explained returns what becomes of the recorded output of a process that failed.
func explained(t *testing.T, recorded string) error {
	t.Helper()
	log := filepath.Join("../spack/testdata", recorded)
	j := &job{Options: &Options{}, ctx: t.Context(), cell: &cell{host: t.TempDir(), logs: t.TempDir()}}
	return j.explain(t.Context(), classSpack, &stepError{step: "install", log: log, code: 1})
}

// TestTogether: of several processes that end the error is the cause, whichever comes
// first, and those that still work are ended by it.
func TestTogether(t *testing.T) {
	reason, elsewhere := explained(t, "beside-1.txt"), explained(t, "beside-2.txt")
	if isConsequence(reason) || !isConsequence(elsewhere) {
		t.Fatalf("%v\n%v", reason, elsewhere)
	}
	said := make(chan struct{})
	err := together(t.Context(), 3, func(ctx context.Context, i int) error {
		switch i {
		case 0:
			close(said)
			return elsewhere
		case 1:
			<-said
			return reason
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, reason) {
		t.Errorf("%v", err)
	}
	if err := together(t.Context(), 2, func(context.Context, int) error { return elsewhere }); !errors.Is(err, elsewhere) {
		t.Errorf("%v", err)
	}
	if err := together(t.Context(), 2, func(context.Context, int) error { return nil }); err != nil {
		t.Errorf("%v", err)
	}
}

// TestProgressOfSeveral: each package counts once, whatever each process says of it.
func TestProgressOfSeveral(t *testing.T) {
	var counts []int64
	b := &spackBuild{
		job: &job{Options: &Options{Events: func(e event.Event) {
			if e.Kind == event.Progress {
				counts = append(counts, e.Done)
			}
		}}},
		seconds: map[string]float64{}, cached: map[string]bool{},
	}
	p := &progress{spackBuild: b, stage: "install", total: 5, done: map[string]bool{"glibc": true}}
	for _, name := range []string{"beside-1.txt", "beside-2.txt"} {
		text, err := os.ReadFile(filepath.Join("../spack/testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		watch := p.watch()
		for line := range strings.Lines(string(text)) {
			watch(strings.TrimSuffix(line, "\n"))
		}
	}
	// glibc, gcc-runtime, wide-a and wide-c; wide-b has failed.
	if len(p.done) != 4 || len(b.seconds) != 3 || !slices.IsSorted(counts) || counts[len(counts)-1] != 4 {
		t.Errorf("%v, %v, %v", p.done, b.seconds, counts)
	}
}

func TestSortInstalls(t *testing.T) {
	const a, b = `"a":{"path":"/m/a<b","n":1.0}`, `"b":{"path":"/m/b"}`
	want := `{"database":{"version":"7","installs":{` + a + `,` + b + `}}}`
	for _, in := range []string{want, `{"database":{"version":"7","installs":{` + b + `,` + a + `}}}`} {
		if got := string(sortInstalls([]byte(in))); got != want {
			t.Errorf("%s", got)
		}
	}
	for _, in := range []string{"", "{", `{"database":{"installs":{},"new":1}}`} {
		if got := string(sortInstalls([]byte(in))); got != in {
			t.Errorf("%s became %s", in, got)
		}
	}
}
