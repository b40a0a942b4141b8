package build

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/event"
)

func TestJobsFor(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		processors   int
		free, perJob int64
		want         int
	}{
		{64, 512 * gib, 0, 64}, {64, 16 * gib, 0, 8}, {64, 16 * gib, 4 * gib, 4}, {64, 1 * gib, 0, 1}, {2, -5 * gib, 0, 1},
	} {
		if got := jobsFor(test.processors, test.free, test.perJob); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
}

func TestChooseJobs(t *testing.T) {
	var said []string
	o := Options{Root: t.TempDir(), MemoryPerJob: 1 << 50, Events: func(e event.Event) { said = append(said, e.Message) }}
	o.chooseJobs()
	if o.Jobs != 1 || runtime.GOMAXPROCS(0) > 1 && !strings.Contains(strings.Join(said, "\n"), "compiles 1 things at once on") {
		t.Errorf("%d jobs, %q", o.Jobs, said)
	}
	o = Options{Root: t.TempDir(), MemoryPerJob: 1}
	o.chooseJobs()
	if o.Jobs != runtime.GOMAXPROCS(0) {
		t.Errorf("%d jobs", o.Jobs)
	}
	o = Options{Jobs: 77, MemoryPerJob: 1 << 50}
	if o.chooseJobs(); o.Jobs != 77 {
		t.Errorf("%d jobs", o.Jobs)
	}
}

// A stage that fails for lack of memory is tried once more, with half the jobs, and
// events and report say so. Any other failure is not.
func TestLessJobsAfterOutOfMemory(t *testing.T) {
	var said []string
	j := &job{Options: &Options{Jobs: 8, Events: func(e event.Event) { said = append(said, e.Message) }}, ctx: t.Context(), cell: &cell{guard: newGuard(t.TempDir(), time.Time{})}}
	var tried []int
	err := j.stageTries("install", twice, func() error {
		tried = append(tried, j.jobs())
		return (&Failure{Class: classMemory, Message: "cc1plus: killed", retry: true}).fault()
	})
	if err == nil || len(tried) != 2 || tried[0] != 8 || tried[1] != 4 {
		t.Errorf("tried with %v jobs: %v", tried, err)
	}
	if s := j.report.Stages[0]; !s.Retried || s.Jobs != 4 || j.report.Jobs != 4 || !strings.Contains(strings.Join(said, "\n"), "compiles 4 things at once from here on") {
		t.Errorf("%+v\n%q", j.report, said)
	}
	tried = nil
	if err := j.stageTries("views", twice, func() error {
		tried = append(tried, j.jobs())
		return (&Failure{Class: classDisk, Message: "full"}).fault()
	}); err == nil || len(tried) != 1 {
		t.Errorf("tried %v, %v", tried, err)
	}
}
