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
	"golang.org/x/term"

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
	terminal io.Writer // nil where there is none that can show a bar
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
	dumb  bool // a terminal is one that writes lines, and cannot go back in them
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
	if isTerminal(w) && !o.json && !o.dumb {
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
		s.bar = newBar(r.terminal, e, columnsOf(r.terminal))
	}
	s.bar.Describe(describe(e, columnsOf(r.terminal)))
	s.bar.Set64(e.Done)
	if e.Total > 0 && e.Done >= e.Total {
		r.clearBar(e.Stage)
	}
}

// columnsOf is how wide a terminal is; as the usual one, if it does not say.
func columnsOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// Widths of what stands around a bar.
const (
	percentWidth = 9  // " 100% |" and "|"
	countWidth   = 25 // " (999/999 MB, 999 MB/s)"
	timesWidth   = 18 // " [59m59s:59m59s]"
	barWidth     = 40 // at most, and
	leastBar     = 8
)

// describe is what stands before a bar: at most a third of the line.
func describe(e event.Event, columns int) string {
	text, most := []rune(joined(e.Stage, e.Message)), max(columns/3, leastBar)
	if len(text) > most {
		return string(text[:most-1]) + "…"
	}
	return string(text)
}

// fitBar says how wide a bar is, and whether counts and times stand behind it: a line
// that is wider than the terminal cannot be written over.
func fitBar(e event.Event, columns int) (width int, counts, times bool) {
	before := len([]rune(e.Stage))
	if e.Message != "" { // which will change
		before = columns / 3
	}
	left := columns - 1 - before - percentWidth
	counts = left >= countWidth+leastBar
	if counts {
		left -= countWidth
	}
	if times = counts && left >= timesWidth+leastBar; times {
		left -= timesWidth
	}
	return min(max(left, 1), barWidth), counts, times
}

func newBar(w io.Writer, e event.Event, columns int) *progressbar.ProgressBar {
	width, counts, times := fitBar(e, columns)
	total := e.Total
	if total == 0 {
		total = -1
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(describe(e, columns)),
		progressbar.OptionSetWidth(width),
		progressbar.OptionThrottle(barRefresh),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(times),
		progressbar.OptionSetElapsedTime(times),
		progressbar.OptionSetSpinnerChangeInterval(0), // we say when: it would go on after the end
	}
	if counts && (e.Total > 0 || e.Done > 0) {
		options = append(options, progressbar.OptionShowCount())
	}
	if counts && e.Unit == "B" {
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
