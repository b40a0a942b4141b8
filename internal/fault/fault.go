// Package fault holds errors for people: each has a kind, which decides the
// exit code of the program, and may carry a hint on what to do about it.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind classifies an error by what its reader can do about it.
type Kind int

// The kinds of errors. The zero value is a plain failure.
const (
	Failure      Kind = iota // anything that no other kind names
	Usage                    // the command line is wrong
	Invalid                  // input such as a recipe, matrix or document is wrong
	NotFound                 // what was asked for does not exist
	Unauthorized             // credentials are missing, wrong or not sufficient
	Network                  // a registry or the network failed; a retry may help
	TestsFailed              // an image's tests ran and failed
	Refused                  // a rule forbids it
	Untested                 // no test ran
	Interrupted              // the user or the system stopped it
)

type kindError struct {
	kind Kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// New returns an error of the given kind. The format may use %w.
func New(kind Kind, format string, args ...any) error {
	return &kindError{kind, fmt.Errorf(format, args...)}
}

// Wrap puts what was being done before err and gives it a kind. It returns nil
// if err is nil. A cancellation stays an interruption whatever the kind.
func Wrap(kind Kind, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		kind = Interrupted
	}
	return &kindError{kind, fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)}
}

type hintError struct {
	hint string
	err  error
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// WithHint adds advice for the user to err. It returns nil if err is nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{fmt.Sprintf(format, args...), err}
}

// KindOf returns the kind of the outermost error in err's chain that has one.
func KindOf(err error) Kind {
	var problems Problems
	var kinded *kindError
	switch {
	case errors.As(err, &kinded):
		return kinded.kind
	case errors.As(err, &problems):
		return Invalid
	case errors.Is(err, context.Canceled):
		return Interrupted
	}
	return Failure
}

// HintOf returns the outermost hint in err's chain, or "".
func HintOf(err error) string {
	var hinted *hintError
	if errors.As(err, &hinted) {
		return hinted.hint
	}
	return ""
}
