package build

import (
	"errors"
	"testing"
	"time"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
)

func TestParseTimes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0m0.010000s 0m0.000000s\n1m2.500000s 0m0.250000s\n": 62750 * time.Millisecond,
		"0m0.00s 0m0.00s\n0m0.33s 0m0.01s\n":                 340 * time.Millisecond,
		"":                                                   0,
		"0m0.00s 0m0.00s\n":                                  0,
		"x\n1m-3s 0m0s\n":                                    0,
		"x\n99999999999999m0s\n":                             0,
		"x\n0mNaNs\n":                                        0,
	} {
		if got := parseTimes(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// What a program takes in a sandbox is known, though bubblewrap's own usage, which
// the kernel tells, has none of it.
func TestMeterInASandbox(t *testing.T) {
	if err := sandbox.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	c := proc.Cmd{Path: "/bin/sh", Args: []string{"-c", `i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exit "$1"`, "sh", "7"}}
	c, err := sandbox.Spec{}.Command(metered(c))
	if err != nil {
		t.Fatal(err)
	}
	var exit *proc.ExitError
	if _, err = c.Output(t.Context()); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("the exit code is lost: %v", err)
	}
	if took := readMeter(c); took < 10*time.Millisecond {
		t.Errorf("300000 rounds took %v", took)
	}
}
