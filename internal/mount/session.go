package mount

import (
	"strings"

	"uenv-ci.dev/internal/fault"
)

// inSession tells whether an environment is that of a program that runs in a
// uenv. Sessions do not nest.
func inSession(getenv func(string) string) bool {
	return getenv(mountListVariable) != "" && getenv(viewVariable) != ""
}

// CheckSession returns an error inside a session.
func CheckSession(getenv func(string) string) error {
	if !inSession(getenv) {
		return nil
	}
	return fault.WithHint(fault.New(fault.Failure, "a uenv session is already running (%s)", getenv(mountListVariable)),
		"leave it first, with 'exit' or Ctrl-D")
}

// Session returns the variables by which other programs know the session: what
// is mounted where, and which views of which uenv are loaded. They replace those
// of the same name.
func (m *Mount) Session(uenv string, views []string) []string {
	var loaded []string
	for _, view := range views {
		loaded = append(loaded, m.point+":"+uenv+":"+view)
	}
	return []string{mountListVariable + "=" + m.image + ":" + m.point, viewVariable + "=" + strings.Join(loaded, ",")}
}
