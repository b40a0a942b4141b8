package evidence

import (
	"errors"
	"io"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
)

// attempts is how often a sandbox is tried whose host changes while it is made.
const attempts = 3

// settled has a program run in a sandbox, which returns its exit code, and again
// if the sandbox could not be made because the host changed meanwhile: that must
// not pass for a test that failed.
func settled(log io.Writer, run func(stderr io.Writer) (int, error)) error {
	for range attempts {
		said := &beginning{to: log}
		code, err := run(said)
		var exit *proc.ExitError
		if errors.As(err, &exit) {
			code, said.text = exit.Code, exit.Stderr
		}
		first, _, _ := strings.Cut(said.text, "\n")
		if !sandbox.HostChanged(code, []string{first}) {
			return err
		}
	}
	return fault.New(fault.Failure, "no sandbox for the tests could be made in %d attempts: files that it is to hide vanish meanwhile", attempts)
}

// beginning keeps the beginning of what goes through it: a sandbox that cannot be
// made says so before anybody else says anything.
type beginning struct {
	to   io.Writer
	text string
}

const maxBeginning = 4 << 10 // bytes

// Write implements io.Writer.
func (b *beginning) Write(p []byte) (int, error) {
	b.text += string(p[:min(len(p), maxBeginning-len(b.text))])
	return b.to.Write(p)
}
