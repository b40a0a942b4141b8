package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// exitCodes is the contract with scripts: docs/design.md lists the same.
var exitCodes = map[fault.Kind]int{
	fault.Failure:      1,
	fault.Usage:        2,
	fault.Invalid:      3,
	fault.NotFound:     4,
	fault.Unauthorized: 5,
	fault.Network:      6,
	fault.TestsFailed:  7,
	fault.Refused:      8,
	fault.Untested:     9,
	fault.Interrupted:  130,
}

// exitStatus is an error that only carries the exit code of a program that we
// ran for the user, who has seen that program's own output.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	return exitCodes[fault.KindOf(err)]
}

// interrupted says in one word that the work was stopped, whatever whose part of it says
// of the cause.
func interrupted(err, cause error) error {
	const word = "interrupted"
	text := strings.NewReplacer(cause.Error(), word, context.Canceled.Error(), word).Replace(err.Error())
	if !strings.Contains(text, word) {
		text = word + ": " + text
	}
	stopped := fault.New(fault.Interrupted, "%s", text)
	if hint := fault.HintOf(err); hint != "" {
		stopped = fault.WithHint(stopped, "%s", hint)
	}
	return stopped
}

// errorDocument is what --format json writes to stderr.
type errorDocument struct {
	Error    string         `json:"error"`
	Code     int            `json:"code"`
	Hint     string         `json:"hint,omitempty"`
	Problems fault.Problems `json:"problems,omitempty"`
}

// reportError tells the user what went wrong: "uenv-ci: message (hint)", or one
// JSON object.
func reportError(w io.Writer, err error, asJSON bool) {
	var status exitStatus
	if errors.As(err, &status) {
		return
	}
	var problems fault.Problems
	errors.As(err, &problems)
	message, hint := tame(err.Error()), tame(fault.HintOf(err))
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.Encode(errorDocument{message, exitCode(err), hint, problems})
		return
	}
	if strings.Contains(message, "\n") {
		fmt.Fprintf(w, "%s: %s\n", programName, message)
		if hint != "" {
			fmt.Fprintf(w, "hint: %s\n", hint)
		}
		return
	}
	if hint != "" {
		message += " (" + hint + ")"
	}
	fmt.Fprintf(w, "%s: %s\n", programName, message)
}
