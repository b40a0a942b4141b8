package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
)

// printer writes results as text: columns that line up, sizes for people, and
// colour where a terminal shows it.
type printer struct {
	w     *bufio.Writer
	color bool
}

func newPrinter(w io.Writer, environ []string) *printer {
	s := streams{environ: environ}
	return &printer{w: bufio.NewWriter(w), color: isTerminal(w) && s.getenv("NO_COLOR") == "" && s.getenv("TERM") != "dumb"}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printf writes one line.
func (p *printer) printf(format string, args ...any) {
	fmt.Fprintln(p.w, tame(fmt.Sprintf(format, args...)))
}

// control matches what a terminal would obey. Colours are let through: they can
// do no harm.
var control = regexp.MustCompile(`\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f\x{80}-\x{9f}]`)

// tame makes foreign text safe to show on a terminal.
func tame(s string) string {
	return control.ReplaceAllStringFunc(s, func(c string) string {
		if len(c) > 2 && c[0] == 0x1b {
			return c
		}
		return fmt.Sprintf("\\x%02x", []rune(c)[0])
	})
}

func (p *printer) flush() error { return p.w.Flush() }

func (p *printer) style(code, s string) string {
	if !p.color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *printer) bold(s string) string   { return p.style("1", s) }
func (p *printer) dim(s string) string    { return p.style("2", s) }
func (p *printer) red(s string) string    { return p.style("31", s) }
func (p *printer) green(s string) string  { return p.style("32", s) }
func (p *printer) yellow(s string) string { return p.style("33", s) }

// table writes rows under a header; the columns in right are aligned right.
func (p *printer) table(header []string, rows [][]string, right ...int) {
	head := make([]string, len(header))
	for i, cell := range header {
		head[i] = p.bold(cell)
	}
	p.rows(append([][]string{head}, rows...), right)
}

// rows writes lines whose columns line up.
func (p *printer) rows(rows [][]string, right []int) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-width(cell))
			if slices.Contains(right, i) {
				b.WriteString(padding + cell)
			} else {
				b.WriteString(cell + padding)
			}
			b.WriteString("  ")
		}
		p.printf("%s", strings.TrimRight(b.String(), " "))
	}
}

func width(cell string) int { return utf8.RuneCountInString(plain(cell)) }

// plain removes the colours of style.
func plain(s string) string {
	for {
		before, after, ok := strings.Cut(s, "\x1b[")
		if !ok {
			return s
		}
		_, rest, _ := strings.Cut(after, "m")
		s = before + rest
	}
}

// formatSeconds writes a duration in seconds, or minutes if it is long.
func formatSeconds(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// shortDigest is enough of a digest for people to tell images apart: the id
// that the uenv client shows.
func shortDigest(d string) string {
	_, hex, ok := strings.Cut(d, ":")
	if !ok {
		hex = d
	}
	return hex[:min(len(hex), 16)]
}

// mark shows whether something is in order.
func (p *printer) mark(ok bool) string {
	if ok {
		return p.green("✓")
	}
	return p.red("✗")
}

// listing is a table whose heading can be left out.
func (p *printer) listing(noHeader bool, header []string, rows [][]string, right ...int) {
	if noHeader {
		p.rows(rows, right)
		return
	}
	p.table(header, rows, right...)
}

// plural writes a number of things whose plural ends in s.
func plural(n int, noun string) string { return count(n, noun, noun+"s") }

// count writes a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// formatDate writes a day, "-" for the zero time.
func formatDate(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.DateOnly)
}

// someOf names the first few of a list.
func someOf(names []string) string {
	const few = 3
	if more := len(names) - few; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), more)
	}
	return strings.Join(names, ", ")
}

// verdict writes a verdict in its colour.
func (p *printer) verdict(s meta.State) string {
	switch s {
	case meta.Pass:
		return p.green(string(s))
	case meta.Fail:
		return p.red(string(s))
	}
	return p.yellow(string(s))
}

// labelsText names the labels of an image.
func labelsText(labels []label.Label) string {
	if len(labels) == 0 {
		return "no label"
	}
	return label.Few(labels, " ")
}

// shortCommit is enough of a commit for people to tell commits apart.
func shortCommit(commit string) string { return commit[:min(len(commit), 12)] }
