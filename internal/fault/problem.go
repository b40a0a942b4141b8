package fault

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity tells problems that must be mended from those that may be.
type Severity int

// The severities of a problem.
const (
	Error Severity = iota
	Warning
)

// String returns "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. What is no warning is an error.
func (s *Severity) UnmarshalText(text []byte) error {
	*s = Error
	if string(text) == Warning.String() {
		*s = Warning
	}
	return nil
}

// Problem is one thing that is wrong at one place of an input file.
type Problem struct {
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`   // from 1; 0 if the file as a whole is meant
	Column   int      `json:"column,omitempty"` // from 1, in characters
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule,omitempty"` // stable name, such as "moving-branch"
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"`
}

// String returns "file:line:column: message (hint)"; warnings say so.
func (p Problem) String() string {
	if p.Severity == Warning {
		return p.text("warning: ")
	}
	return p.text("")
}

// Plain returns the same without the severity, for where that is told otherwise.
func (p Problem) Plain() string { return p.text("") }

func (p Problem) text(severity string) string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(severity + p.Message)
	if p.Hint != "" {
		fmt.Fprintf(&b, " (%s)", p.Hint)
	}
	return b.String()
}

// Problems are all that is wrong with an input. As an error its kind is Invalid.
type Problems []Problem

// Error returns one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns the problems of severity Error as an error, or nil if there are none.
func (ps Problems) Err() error {
	if errs := ps.Errors(); len(errs) > 0 {
		return errs
	}
	return nil
}

// Errors returns the problems of severity Error.
func (ps Problems) Errors() Problems { return ps.only(Error) }

// Warnings returns the problems of severity Warning.
func (ps Problems) Warnings() Problems { return ps.only(Warning) }

func (ps Problems) only(s Severity) Problems {
	var kept Problems
	for _, p := range ps {
		if p.Severity == s {
			kept = append(kept, p)
		}
	}
	return kept
}

// Sort orders the problems by file, line and column, keeping the order of equals.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
