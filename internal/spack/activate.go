package spack

import "strings"

// Export is a variable that an activation script sets.
type Export struct{ Name, Value string }

// ParseExports reads the output of `spack env activate --sh`: the variables that
// it sets, in order, without those of Spack itself. Aliases and functions are
// left out, and quotes around values taken off.
func ParseExports(script string) []Export {
	var exports []Export
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		rest, ok := strings.CutPrefix(line, "export ")
		if !ok {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSpace(rest), "=")
		if !ok || strings.HasPrefix(name, "SPACK_") {
			continue
		}
		exports = append(exports, Export{name, unquote(value)})
	}
	return exports
}

// unquote takes off the quotes that a POSIX shell would.
func unquote(s string) string {
	if len(s) < 2 || s[0] != s[len(s)-1] {
		return s
	}
	switch s[0] {
	case '\'':
		return strings.ReplaceAll(s[1:len(s)-1], `'"'"'`, `'`)
	case '"':
		return s[1 : len(s)-1]
	}
	return s
}
