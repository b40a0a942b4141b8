// Package label reads and writes the names of user environments:
// [namespace::]name/version:tag@system%uarch, the grammar of the uenv client.
package label

import (
	"fmt"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// AnySystem is the system of a label that matches every system.
const AnySystem = "*"

// Label names an image, or several if parts are empty.
type Label struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Version   string `json:"version,omitempty"`
	Tag       string `json:"tag,omitempty"`
	System    string `json:"system,omitempty"` // AnySystem matches all
	UArch     string `json:"uarch,omitempty"`
}

// SyntaxError tells which part of a label is wrong.
type SyntaxError struct {
	Input  string
	Offset int    // of the first wrong byte
	Part   string // "namespace", "name", "version", "tag", "system" or "uarch"
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("invalid label %q: %s: %s (at character %d)", e.Input, e.Part, e.Reason, e.Offset+1)
}

// Parse reads a label. Every part may be missing. An error is of kind
// fault.Usage and wraps a *SyntaxError.
func Parse(s string) (Label, error) {
	l, err := parse(s)
	if err != nil {
		wrapped := fault.New(fault.Usage, "%w", err)
		return Label{}, fault.WithHint(wrapped, "a label is [namespace::]name/version:tag@system%%uarch, such as prgenv-gnu/25.11:v1@daint%%gh200")
	}
	return l, nil
}

func parse(s string) (Label, error) {
	var l Label
	rest, offset := s, 0
	if ns, after, ok := strings.Cut(s, "::"); ok {
		if err := check(s, 0, "namespace", ns); err != nil {
			return l, err
		}
		l.Namespace, rest, offset = ns, after, len(ns)+2
	}
	part, separator := "name", byte(0)
	seen := map[byte]bool{}
	for {
		end := strings.IndexAny(rest, "/:@%")
		value := rest
		if end >= 0 {
			value = rest[:end]
		}
		if err := l.set(s, offset, part, value); err != nil {
			return l, err
		}
		if end < 0 {
			return l, nil
		}
		next := rest[end]
		if err := follows(s, offset+end, separator, next, seen); err != nil {
			return l, err
		}
		separator, part = next, partOf(next)
		seen[next] = true
		rest, offset = rest[end+1:], offset+end+1
	}
}

func partOf(separator byte) string {
	return map[byte]string{'/': "version", ':': "tag", '@': "system", '%': "uarch"}[separator]
}

// follows checks that a separator may come after the previous one.
func follows(s string, offset int, previous, next byte, seen map[byte]bool) error {
	part := partOf(next)
	if seen[next] {
		return &SyntaxError{s, offset, part, fmt.Sprintf("a second %q", next)}
	}
	order := map[byte]int{0: 0, '/': 1, ':': 2, '@': 3, '%': 3}
	if order[next] < order[previous] {
		return &SyntaxError{s, offset, part, fmt.Sprintf("%q must come before %q", next, previous)}
	}
	return nil
}

func (l *Label) set(s string, offset int, part, value string) error {
	fields := map[string]*string{"name": &l.Name, "version": &l.Version, "tag": &l.Tag, "system": &l.System, "uarch": &l.UArch}
	if part == "name" && value == "" {
		return nil
	}
	if part == "system" && value == AnySystem {
		l.System = AnySystem
		return nil
	}
	if err := check(s, offset, part, value); err != nil {
		return err
	}
	*fields[part] = value
	return nil
}

func check(s string, offset int, part, value string) error {
	if value == "" {
		return &SyntaxError{s, offset, part, "is empty"}
	}
	for i := range len(value) {
		if !allowed(value[i], i == 0) {
			return &SyntaxError{s, offset + i, part, fmt.Sprintf("%q is not allowed here", []rune(value[i:])[0])}
		}
	}
	return nil
}

func allowed(c byte, first bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		return true
	}
	return !first && (c == '-' || c == '.')
}

// Valid tells whether s may be a part of a label:
// [A-Za-z0-9_][A-Za-z0-9_.-]*
func Valid(s string) bool { return check(s, 0, "", s) == nil }

// String returns the label's canonical text, without its empty parts.
func (l Label) String() string {
	var b strings.Builder
	write := func(before, part, after string) {
		if part != "" {
			b.WriteString(before + part + after)
		}
	}
	write("", l.Namespace, "::")
	write("", l.Name, "")
	write("/", l.Version, "")
	write(":", l.Tag, "")
	write("@", l.System, "")
	write("%", l.UArch, "")
	return b.String()
}

// Few writes the first of some labels, and how many more there are.
func Few(labels []Label, separator string) string {
	const most = 3
	var texts []string
	for _, l := range labels[:min(len(labels), most)] {
		texts = append(texts, l.String())
	}
	if more := len(labels) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, separator)
}

// Missing returns the names of the empty parts, the namespace apart; a wildcard
// system counts as missing.
func (l Label) Missing() []string {
	var missing []string
	for _, p := range []struct{ name, value string }{
		{"name", l.Name}, {"version", l.Version}, {"tag", l.Tag}, {"system", strings.TrimPrefix(l.System, AnySystem)}, {"uarch", l.UArch},
	} {
		if p.value == "" {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// WithNamespace returns l in the given namespace if it has none.
func (l Label) WithNamespace(namespace string) Label {
	if l.Namespace == "" {
		l.Namespace = namespace
	}
	return l
}

// Repository returns the path in a registry: namespace/system/uarch/name/version.
// The tag is not part of it.
func (l Label) Repository() string {
	return strings.Join([]string{l.Namespace, l.System, l.UArch, l.Name, l.Version}, "/")
}

// FromRepository is the inverse of Repository. The tag may be empty.
func FromRepository(repository, tag string) (Label, error) {
	parts := strings.Split(repository, "/")
	if len(parts) != 5 {
		return Label{}, fault.New(fault.Invalid, "repository %q is not of the form namespace/system/uarch/name/version", repository)
	}
	for _, p := range append(parts, tag) {
		if !Valid(p) && (p != "" || tag != "") {
			return Label{}, fault.New(fault.Invalid, "repository %q, tag %q: %q cannot be part of a label", repository, tag, p)
		}
	}
	return Label{Namespace: parts[0], System: parts[1], UArch: parts[2], Name: parts[3], Version: parts[4], Tag: tag}, nil
}

// Match tells whether l is one of those that pattern names: empty parts and a
// wildcard system of the pattern match everything. With prefix the name needs
// only to begin with the pattern's, in any case of letters.
func (l Label) Match(pattern Label, prefix bool) bool {
	nameMatches := pattern.Name == "" || pattern.Name == l.Name ||
		prefix && strings.HasPrefix(strings.ToLower(l.Name), strings.ToLower(pattern.Name))
	same := func(want, have string) bool { return want == "" || want == have }
	return nameMatches && same(pattern.Namespace, l.Namespace) && same(pattern.Version, l.Version) &&
		same(pattern.Tag, l.Tag) && (pattern.System == AnySystem || same(pattern.System, l.System)) && same(pattern.UArch, l.UArch)
}
