package event

import (
	"errors"
	"testing"
)

func TestSink(t *testing.T) {
	var got []Event
	s := Sink(func(e Event) { got = append(got, e) })
	s.Start("pull", "from %s", "r")
	s.Progress("pull", 3, 10, "B")
	s.Failed("pull", errors.New("reset"))
	want := []Event{
		{Kind: Started, Stage: "pull", Message: "from r"},
		{Kind: Progress, Stage: "pull", Done: 3, Total: 10, Unit: "B"},
		{Kind: Failed, Stage: "pull", Message: "reset"},
	}
	for i, w := range want {
		g := got[i]
		if g.Time.IsZero() || g.Kind != w.Kind || g.Message != w.Message || g.Done != w.Done || g.Total != w.Total || g.Unit != w.Unit {
			t.Errorf("event %d: got %+v, want %+v", i, g, w)
		}
	}
}

func TestNilSinkDrops(t *testing.T) {
	var s Sink
	s.Info("x", "y")
	s.Failed("x", errors.New("y"))
}
