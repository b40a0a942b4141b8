package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestKindOfTakesTheOutermost(t *testing.T) {
	inner := New(NotFound, "no tag %q", "v1")
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{nil, Failure},
		{errors.New("x"), Failure},
		{inner, NotFound},
		{fmt.Errorf("pull: %w", inner), NotFound},
		{Wrap(Refused, inner, "promote"), Refused},
		{WithHint(inner, "try again"), NotFound},
		{Problems{{Message: "bad"}}, Invalid},
		{fmt.Errorf("load: %w", Problems{{Message: "bad"}}), Invalid},
		{fmt.Errorf("x: %w", context.Canceled), Interrupted},
		{Wrap(Network, context.Canceled, "fetch"), Interrupted},
	} {
		if got := KindOf(c.err); got != c.want {
			t.Errorf("KindOf(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestWrapAndHintKeepNil(t *testing.T) {
	if Wrap(Network, nil, "x") != nil || WithHint(nil, "x") != nil {
		t.Error("a nil error became an error")
	}
}

func TestHintOf(t *testing.T) {
	err := Wrap(Refused, WithHint(errors.New("no results"), "run '%s' first", "test"), "promote")
	if err.Error() != "promote: no results" || HintOf(err) != "run 'test' first" || HintOf(errors.New("x")) != "" {
		t.Errorf("got %q, hint %q", err, HintOf(err))
	}
}

func TestProblems(t *testing.T) {
	ps := Problems{
		{File: "b.yaml", Line: 2, Message: "later"},
		{File: "a.yaml", Line: 3, Column: 5, Message: "unknown key 'x'", Hint: "did you mean 'y'?"},
		{File: "a.yaml", Line: 1, Message: "old", Severity: Warning},
	}
	ps.Sort()
	want := "a.yaml:1: warning: old\na.yaml:3:5: unknown key 'x' (did you mean 'y'?)\nb.yaml:2: later"
	if ps.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", ps.Error(), want)
	}
	if len(ps.Warnings()) != 1 || len(ps.Errors()) != 2 || ps.Err() == nil || ps.Warnings().Err() != nil {
		t.Error("severities are not told apart")
	}
}
