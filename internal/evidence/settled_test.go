package evidence

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// gone is what bubblewrap 0.8 writes when a file that it is to hide has vanished.
const gone = "bwrap: Can't mkdir parents for /srv/a/password: Read-only file system\n"

func TestSettled(t *testing.T) {
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		codes []int
		errs  []error
		text  string
		runs  int
		want  error
	}{
		"passed":                  {codes: []int{0}, text: gone, runs: 1},
		"another failure":         {codes: []int{1}, text: "bwrap: execvp test: No such file or directory\n", runs: 1},
		"the host changed":        {codes: []int{1, 0}, text: gone, runs: 2},
		"seen by another command": {codes: []int{0, 0}, errs: []error{fmt.Errorf("ask: %w", &proc.ExitError{Code: 1, Stderr: gone})}, runs: 2},
		"an error":                {codes: []int{0}, errs: []error{failed}, runs: 1, want: failed},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			runs := 0
			err := settled(&log, func(stderr io.Writer) (int, error) {
				runs++
				io.WriteString(stderr, c.text)
				if runs <= len(c.errs) {
					return c.codes[runs-1], c.errs[runs-1]
				}
				return c.codes[runs-1], nil
			})
			if runs != c.runs || !errors.Is(err, c.want) || log.String() != strings.Repeat(c.text, runs) {
				t.Errorf("%d runs, %v, log %q", runs, err, log.String())
			}
		})
	}
	err := settled(io.Discard, func(stderr io.Writer) (int, error) {
		io.WriteString(stderr, gone)
		return 1, nil
	})
	if err == nil || fault.KindOf(err) != fault.Failure {
		t.Errorf("never settled: %v", err)
	}
}
