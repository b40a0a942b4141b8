// Package event is how the program's logic tells what it is doing: it emits
// events instead of printing, and the caller decides how to show them.
package event

import (
	"fmt"
	"time"
)

// Kind is what an event tells.
type Kind string

// The kinds of events.
const (
	Started  Kind = "started"  // a stage begins
	Progress Kind = "progress" // a stage has come this far
	Done     Kind = "done"     // a stage has ended well
	Failed   Kind = "failed"   // a stage has ended in an error
	Info     Kind = "info"     // something worth a line
	Warning  Kind = "warning"  // something the user should know of
)

// Event is one thing that happened in a stage of some work.
type Event struct {
	Time    time.Time         `json:"time"`
	Kind    Kind              `json:"kind"`
	Stage   string            `json:"stage"`
	Message string            `json:"message,omitempty"`
	Done    int64             `json:"done,omitempty"`  // for Progress, in Unit
	Total   int64             `json:"total,omitempty"` // for Progress; 0 if unknown
	Unit    string            `json:"unit,omitempty"`  // "B" for bytes, else a plural noun
	Fields  map[string]string `json:"fields,omitempty"`
}

// Sink receives events, from several goroutines at once. A nil Sink drops them.
type Sink func(Event)

// Emit sends e, with the present time if it has none.
func (s Sink) Emit(e Event) {
	if s == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s(e)
}

// Start tells that a stage begins.
func (s Sink) Start(stage, format string, args ...any) { s.say(Started, stage, format, args) }

// Done tells that a stage has ended well.
func (s Sink) Done(stage, format string, args ...any) { s.say(Done, stage, format, args) }

// Info tells something worth a line.
func (s Sink) Info(stage, format string, args ...any) { s.say(Info, stage, format, args) }

// Warn tells something the user should know of.
func (s Sink) Warn(stage, format string, args ...any) { s.say(Warning, stage, format, args) }

// Failed tells that a stage has ended in err.
func (s Sink) Failed(stage string, err error) {
	s.Emit(Event{Kind: Failed, Stage: stage, Message: err.Error()})
}

// Progress tells how far a stage has come; total 0 means unknown.
func (s Sink) Progress(stage string, done, total int64, unit string) {
	s.Emit(Event{Kind: Progress, Stage: stage, Done: done, Total: total, Unit: unit})
}

func (s Sink) say(k Kind, stage, format string, args []any) {
	if s == nil {
		return
	}
	s.Emit(Event{Kind: k, Stage: stage, Message: fmt.Sprintf(format, args...)})
}
