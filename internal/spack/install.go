package spack

import (
	"regexp"
	"strconv"
	"strings"
)

// InstallKind is what a line of `spack install` tells.
type InstallKind int

// The kinds of events. The zero value is a line that tells nothing of interest.
const (
	Nothing    InstallKind = iota
	Installing             // a package is begun
	Installed              // a package is there
	Extracting             // a package comes from a build cache
)

// InstallEvent is something that happened in an installation.
type InstallEvent struct {
	Kind    InstallKind
	Package string // name-version
	Hash    string
	Seconds float64 // of an Installed package that was built
}

// InstallWatcher follows the output of `spack install`.
type InstallWatcher struct {
	last InstallEvent
}

var (
	installing = regexp.MustCompile(`^==> Installing (\S+)-([a-z2-7]{32})(?: \[\d+/\d+\])?$`)
	extracting = regexp.MustCompile(`^==> Extracting (\S+)-([a-z2-7]{32}) from binary cache$`)
	installed  = regexp.MustCompile(`^==> \S+: Successfully installed (\S+)-([a-z2-7]{32})$`)
)

// Line looks at one line. The end of a package is told by the line after
// "Successfully installed", which has the times.
func (w *InstallWatcher) Line(line string) InstallEvent {
	switch {
	case installing.MatchString(line):
		m := installing.FindStringSubmatch(line)
		return InstallEvent{Kind: Installing, Package: m[1], Hash: m[2]}
	case extracting.MatchString(line):
		m := extracting.FindStringSubmatch(line)
		return InstallEvent{Kind: Extracting, Package: m[1], Hash: m[2]}
	case installed.MatchString(line):
		m := installed.FindStringSubmatch(line)
		w.last = InstallEvent{Kind: Installed, Package: m[1], Hash: m[2]}
	case w.last.Kind == Installed && strings.Contains(line, "Total: "):
		e := w.last
		e.Seconds = seconds(line[strings.LastIndex(line, "Total: ")+len("Total: "):])
		w.last = InstallEvent{}
		return e
	}
	return InstallEvent{}
}

// seconds reads a time as Spack writes it: 1.52s, 2m 3.00s, 1h 2m 3.00s.
func seconds(s string) float64 {
	total := 0.0
	for _, part := range strings.Fields(s) {
		unit, ok := map[byte]float64{'h': 3600, 'm': 60, 's': 1}[part[len(part)-1]]
		n, err := strconv.ParseFloat(part[:len(part)-1], 64)
		if !ok || err != nil {
			break
		}
		total += n * unit
	}
	return total
}
