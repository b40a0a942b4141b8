package build

import (
	"context"
	"strings"
	"sync"
	"time"

	"uenv-ci.dev/internal/event"
)

// heartbeatInterval is how often a build tells that it is still at it.
const heartbeatInterval = time.Second

// heartbeat remembers what a build does at the moment, by the events that it sends,
// and repeats it while nothing else is said: a compiler is silent for an hour.
type heartbeat struct {
	to event.Sink

	mu  sync.Mutex
	now event.Event // Progress, of no stage between stages
	at  time.Time   // of the last event
}

// sink passes an event on.
func (h *heartbeat) sink(e event.Event) {
	h.mu.Lock()
	h.at = e.Time
	switch {
	case e.Kind == event.Started:
		h.now = event.Event{Kind: event.Progress, Stage: e.Stage}
	case e.Stage != h.now.Stage:
	case e.Kind == event.Done || e.Kind == event.Failed:
		h.now = event.Event{}
	case e.Kind == event.Progress:
		e.Message = h.now.Message
		h.now = e
	case e.Kind == event.Info && strings.HasPrefix(e.Stage, "install "):
		h.now.Message = e.Message // the package
	}
	h.mu.Unlock()
	h.to.Emit(e)
}

// beat repeats what is done until the context ends.
func (h *heartbeat) beat(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			h.mu.Lock()
			e, quiet := h.now, now.Sub(h.at) >= interval
			h.mu.Unlock()
			if e.Stage != "" && quiet {
				e.Time = now
				h.to.Emit(e)
			}
		}
	}
}
