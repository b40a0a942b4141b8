package spack

import (
	"bufio"
	"io"
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
	in, err := os.Open(file)
	if err != nil {
		return Failure{}, false
	}
	defer in.Close()
	return parseFailure(in)
}

// parseFailure finds the failure in the output of Spack. What follows the first
// error is only its consequence.
func parseFailure(output io.Reader) (f Failure, ok bool) {
	lines := bufio.NewReaderSize(output, maxLine)
	for {
		line, more := nextLine(lines)
		if !more {
			return Failure{}, false
		}
		if m := installing.FindStringSubmatch(line); m != nil {
			f.Package, f.Phase = m[1], ""
		} else if strings.HasPrefix(line, installedAt) {
			f.Package, f.Phase = "", "" // what fails now is something else
		} else if m := phase.FindStringSubmatch(line); m != nil {
			f.Phase = m[1]
		} else if m := failed.FindStringSubmatch(line); m != nil {
			f.Message, f.Log = follow(m[1], lines)
			return f, true
		}
	}
}

// maxLine is how many bytes of a line are looked at: packages write what they like.
const maxLine = 64 << 10

// nextLine returns the next line, or as much as is looked at of it.
func nextLine(in *bufio.Reader) (line string, ok bool) {
	text, more, err := in.ReadLine()
	if err != nil {
		return "", false
	}
	line = strings.ToValidUTF8(string(text), "?")
	for more && err == nil {
		_, more, err = in.ReadLine()
	}
	return line, true
}

// follow reads on after the first line of an error, to where Spack goes on with
// something else: it returns the whole message, a line each, and the path of the log
// that is named.
func follow(message string, in *bufio.Reader) (text, log string) {
	ended, named := false, false
	for n := 0; ; n++ {
		line, ok := nextLine(in)
		if !ok || strings.HasPrefix(line, "==>") {
			return message, ""
		}
		if named {
			return message, strings.TrimSpace(line)
		}
		ended = ended || n == maxMessages || strings.TrimSpace(line) == ""
		if !ended {
			message += "\n" + strings.TrimRight(line, " ")
		}
		named = strings.TrimSpace(line) == logFollows
	}
}
