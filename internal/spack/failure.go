package spack

import (
	"os"
	"regexp"
	"strings"
)

// Failure is the first error in what a command of Spack said.
type Failure struct {
	Package string // name-version of the package that was being installed, "" if none
	Phase   string // of its build, such as configure or install, "" if it did not come that far
	Message string // without the program's decoration, may have several lines
	Log     string // path of the package's build log, as Spack saw it, "" if there is none
}

var (
	failed      = regexp.MustCompile(`^==> Error: (.*)`)
	phase       = regexp.MustCompile(`^==> \S+: Executing phase: '([^']+)'`)
	installedAt = "[+] " // and the prefix: the package is there
	logFollows  = "See build log for details:"
	maxMessages = 40 // lines
)

// consequences are what Spack says of a failure that happened in another process.
var consequences = regexp.MustCompile(
	`^Terminating after first install failure$|is marked as an install failure|is write locked by another process`)

// Elsewhere tells whether the failure is only what became of one in another process
// that installs into the same tree.
func (f Failure) Elsewhere() bool { return consequences.MatchString(f.Message) }

// ReadFailure finds the failure in a file with the output of Spack. ok is false if
// there is none.
func ReadFailure(file string) (f Failure, ok bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Failure{}, false
	}
	return ParseFailure(string(data))
}

// ParseFailure finds the failure in the output of Spack. What follows the first
// error is only its consequence.
func ParseFailure(output string) (f Failure, ok bool) {
	lines := strings.Split(strings.ToValidUTF8(output, "?"), "\n")
	for i, line := range lines {
		if m := installing.FindStringSubmatch(line); m != nil {
			f.Package, f.Phase = m[1], ""
		} else if strings.HasPrefix(line, installedAt) {
			f.Package, f.Phase = "", "" // what fails now is something else
		} else if m := phase.FindStringSubmatch(line); m != nil {
			f.Phase = m[1]
		} else if m := failed.FindStringSubmatch(line); m != nil {
			f.Message, f.Log = m[1]+continuation(lines[i+1:]), logPath(lines[i+1:])
			return f, true
		}
	}
	return Failure{}, false
}

// continuation returns the lines that belong to an error, each after a line break.
func continuation(lines []string) string {
	var text strings.Builder
	for i, line := range lines {
		if i == maxMessages || strings.TrimSpace(line) == "" || strings.HasPrefix(line, "==>") {
			break
		}
		text.WriteString("\n" + strings.TrimRight(line, " "))
	}
	return text.String()
}

// logPath returns the path that Spack names before it goes on.
func logPath(lines []string) string {
	for i, line := range lines {
		if strings.HasPrefix(line, "==>") {
			break
		}
		if strings.TrimSpace(line) == logFollows && i+1 < len(lines) {
			return strings.TrimSpace(lines[i+1])
		}
	}
	return ""
}
