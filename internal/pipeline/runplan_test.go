package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/plan"
)

// jobsOf is a plan whose jobs fail, before they do anything, as runOptions says.
func jobsOf(n int) plan.Plan {
	p := plan.Plan{Format: plan.Format}
	for i := range n {
		j := plan.Job{Name: fmt.Sprint("n", i), Version: "1", System: "s", UArch: "u", Sandbox: true}
		j.ID = j.Label().String()
		p.Jobs = append(p.Jobs, j)
	}
	return p
}

func failing(kinds ...fault.Kind) func(plan.Job) (label.Label, error) {
	return func(j plan.Job) (label.Label, error) {
		var i int
		fmt.Sscanf(j.Name, "n%d", &i)
		return label.Label{}, fault.WithHint(fault.New(kinds[i], "reason %d", i), "hint %d", i)
	}
}

// The worst job decides: interruptions first, then the order of the exit codes.
func TestRunIsAsGoodAsItsWorstJob(t *testing.T) {
	for _, c := range []struct {
		kinds []fault.Kind
		want  fault.Kind
		id    string
	}{
		{[]fault.Kind{fault.Untested, fault.TestsFailed, fault.Untested}, fault.TestsFailed, "n1/1"},
		{[]fault.Kind{fault.TestsFailed, fault.Network}, fault.Network, "n1/1"},
		{[]fault.Kind{fault.Network, fault.Invalid, fault.Failure, fault.Usage}, fault.Failure, "n2/1"},
		{[]fault.Kind{fault.Failure, fault.Interrupted}, fault.Interrupted, "n1/1"},
		{[]fault.Kind{fault.Untested}, fault.Untested, "n0/1"},
	} {
		ran, err := pipeline.Run(t.Context(), jobsOf(len(c.kinds)), pipeline.RunOptions{KeepGoing: true, Label: failing(c.kinds...)})
		if fault.KindOf(err) != c.want || !strings.Contains(err.Error(), c.id) {
			t.Errorf("%v: %v", c.kinds, err)
		}
		for i, j := range ran.Jobs {
			if fault.KindOf(j.Err()) != c.kinds[i] || j.Error != fmt.Sprint("reason ", i) || j.Hint != fmt.Sprint("hint ", i) || j.Build != pipeline.NotRun {
				t.Errorf("%v: %+v", c.kinds, j)
			}
		}
	}
}

func TestRunStopsAtAFailure(t *testing.T) {
	begun := func(keepGoing bool, kinds ...fault.Kind) (n int, err error) {
		ran, err := pipeline.Run(t.Context(), jobsOf(len(kinds)), pipeline.RunOptions{KeepGoing: keepGoing, Label: failing(kinds...)})
		for _, j := range ran.Jobs {
			if j.Error != "" {
				n++
			}
		}
		return n, err
	}
	n, err := begun(false, fault.Untested, fault.TestsFailed, fault.Failure, fault.Failure)
	if n != 2 || !strings.HasPrefix(err.Error(), "2 of 4 images did not succeed, 2 not begun") || fault.KindOf(err) != fault.TestsFailed {
		t.Errorf("%d begun: %v", n, err)
	}
	if n, err := begun(true, fault.TestsFailed, fault.Failure, fault.Failure); n != 3 || fault.KindOf(err) != fault.Failure {
		t.Errorf("%d begun: %v", n, err)
	}
}

func TestRunOfNothing(t *testing.T) {
	if ran, err := pipeline.Run(t.Context(), jobsOf(0), pipeline.RunOptions{}); err != nil || len(ran.Jobs) != 0 {
		t.Errorf("%+v, %v", ran, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran, err := pipeline.Run(ctx, jobsOf(2), pipeline.RunOptions{Label: failing(fault.Failure, fault.Failure)})
	if fault.KindOf(err) != fault.Interrupted || ran.Jobs[0].Error != "" {
		t.Errorf("%+v, %v", ran, err)
	}
}

// So many jobs as are allowed run at once, never two without a sandbox.
func TestRunAtOnce(t *testing.T) {
	for _, c := range []struct {
		jobs    int
		sandbox bool
		want    int64
	}{{0, true, 1}, {1, true, 1}, {3, true, 3}, {3, false, 1}} {
		p := jobsOf(6)
		for i := range p.Jobs {
			p.Jobs[i].Sandbox = c.sandbox
		}
		var now, most atomic.Int64
		var all sync.WaitGroup
		all.Add(int(c.want))
		var first atomic.Int64
		var told atomic.Int64
		_, err := pipeline.Run(t.Context(), p, pipeline.RunOptions{
			Jobs: c.jobs, KeepGoing: true, Events: func(e event.Event) { told.Add(1) },
			Label: func(plan.Job) (label.Label, error) {
				n := now.Add(1)
				defer now.Add(-1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				if first.Add(1) <= c.want { // wait until as many are here as may be
					all.Done()
					all.Wait()
				}
				return label.Label{}, fault.New(fault.Failure, "enough")
			},
		})
		if most.Load() != c.want || err == nil || told.Load() != 12 {
			t.Errorf("%+v: %d at once, %d events, %v", c, most.Load(), told.Load(), err)
		}
	}
}
