package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/schollz/progressbar/v3"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

const (
	barAfter   = time.Second     // work shorter than this gets no progress
	lineEvery  = 5 * time.Second // between progress lines where there is no terminal,
	lineShare  = 5               // but no more often than at this part of the time,
	lineAtMost = time.Minute     // nor seldomer than this
	barRefresh = 100 * time.Millisecond
)

// reporter shows events on stderr: a progress bar on a terminal, log lines
// elsewhere.
type reporter struct {
	mu       sync.Mutex
	log      zerolog.Logger
	fields   bool      // machines read it
	terminal io.Writer // nil where there is none
	stages   map[string]*stage
}

type stage struct {
	started  time.Time
	lastLine time.Time
	bar      *progressbar.ProgressBar
	total    int64
}

type logOptions struct {
	quiet bool
	json  bool
	level string
}

func newReporter(w io.Writer, o logOptions) (*reporter, error) {
	level, err := zerolog.ParseLevel(o.level)
	if err != nil || o.level == "" {
		return nil, fault.New(fault.Usage, "--log-level must be debug, info, warn or error, not %q", o.level)
	}
	r := &reporter{stages: map[string]*stage{}, fields: o.json}
	if o.quiet {
		r.log = zerolog.Nop()
		return r, nil
	}
	if isTerminal(w) && !o.json {
		r.terminal = w
	}
	out := w
	if !o.json {
		out = consoleWriter(w, r.terminal != nil)
	}
	r.log = zerolog.New(out).Level(level).With().Timestamp().Logger()
	return r, nil
}

func consoleWriter(w io.Writer, terminal bool) io.Writer {
	c := zerolog.ConsoleWriter{Out: w, NoColor: !terminal || os.Getenv("NO_COLOR") != "", TimeFormat: time.TimeOnly}
	c.PartsOrder = []string{zerolog.TimestampFieldName, zerolog.LevelFieldName, zerolog.MessageFieldName}
	if terminal {
		c.PartsOrder = []string{zerolog.LevelFieldName, zerolog.MessageFieldName}
		c.FormatLevel = func(level any) string {
			switch level {
			case "warn":
				return "warning:"
			case "error":
				return "failed:"
			}
			return "·"
		}
	}
	return c
}

// sink receives the events of a piece of work.
func (r *reporter) sink(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == event.Progress {
		r.progress(e)
		return
	}
	r.clearBar(e.Stage)
	r.line(e)
	switch e.Kind {
	case event.Started:
		r.stages[e.Stage] = &stage{started: e.Time}
	case event.Done, event.Failed:
		delete(r.stages, e.Stage)
	}
}

// line writes one event. Fields are for machines.
func (r *reporter) line(e event.Event) {
	text := r.text(e)
	if text == "" {
		return
	}
	level := levelOf(e.Kind)
	if level < r.log.GetLevel() {
		return
	}
	entry := r.log.WithLevel(level)
	if r.fields {
		entry = entry.Str("stage", e.Stage).Str("event", string(e.Kind))
		for k, v := range e.Fields {
			entry = entry.Str(k, v)
		}
	}
	entry.Msg(tame(text))
}

func levelOf(k event.Kind) zerolog.Level {
	switch k {
	case event.Warning:
		return zerolog.WarnLevel
	case event.Failed:
		return zerolog.ErrorLevel
	}
	return zerolog.InfoLevel
}

// text is what an event says to people; "" if that is nothing new. A failure is
// told by the error at the end.
func (r *reporter) text(e event.Event) string {
	message := e.Message
	switch e.Kind {
	case event.Failed:
		return ""
	case event.Started:
		if message == "" {
			return ""
		}
	case event.Done:
		if message == "" {
			message = "done"
		}
		if s := r.stages[e.Stage]; s != nil {
			message += fmt.Sprintf(" (%s)", formatSeconds(e.Time.Sub(s.started).Seconds()))
		}
	}
	if e.Stage == "" {
		return message
	}
	return e.Stage + ": " + message
}

func (r *reporter) progress(e event.Event) {
	s := r.stages[e.Stage]
	if s == nil {
		s = &stage{started: e.Time}
		r.stages[e.Stage] = s
	}
	if e.Time.Sub(s.started) < barAfter {
		return
	}
	if r.terminal == nil {
		elapsed := e.Time.Sub(s.started)
		if e.Time.Sub(s.lastLine) >= min(max(lineEvery, elapsed/lineShare), lineAtMost) && (!s.lastLine.IsZero() || elapsed >= lineEvery || e.Total > 0) {
			s.lastLine = e.Time
			text := progressText(e)
			if e.Unit != "B" {
				text = joined(text, e.Message, "elapsed "+elapsed.Round(time.Second).String())
			}
			r.line(event.Event{Kind: event.Info, Stage: e.Stage, Message: text})
		}
		return
	}
	if s.bar == nil || s.total != e.Total {
		s.total = e.Total
		s.bar = newBar(r.terminal, e)
	}
	s.bar.Describe(joined(e.Stage, e.Message))
	s.bar.Set64(e.Done)
	if e.Total > 0 && e.Done >= e.Total {
		r.clearBar(e.Stage)
	}
}

func newBar(w io.Writer, e event.Event) *progressbar.ProgressBar {
	total := e.Total
	if total == 0 {
		total = -1
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(e.Stage),
		progressbar.OptionThrottle(barRefresh),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetSpinnerChangeInterval(0), // we say when: it would go on after the end
	}
	if e.Total > 0 || e.Done > 0 {
		options = append(options, progressbar.OptionShowCount())
	}
	if e.Unit == "B" {
		options = append(options, progressbar.OptionShowBytes(true))
	}
	return progressbar.NewOptions64(total, options...)
}

func (r *reporter) clearBar(name string) {
	if s := r.stages[name]; s != nil && s.bar != nil {
		s.bar.Clear()
		s.bar = nil
	}
}

// joined returns the texts that say something, with commas.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(t string) bool { return t == "" }), ", ")
}

// progressText says how far something has come; "" if that is not known.
func progressText(e event.Event) string {
	if e.Done == 0 && e.Total == 0 {
		return ""
	}
	done, total := fmt.Sprint(e.Done), fmt.Sprint(e.Total)
	if e.Unit == "B" {
		done, total = event.FormatBytes(e.Done), event.FormatBytes(e.Total)
	}
	text := done
	if e.Total > 0 {
		text += " of " + total
	}
	if e.Unit != "B" && e.Unit != "" {
		text += " " + e.Unit
	}
	return text
}
