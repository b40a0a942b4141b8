package recipe

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"uenv-ci.dev/internal/fault"
)

// maxHook is the size up to which a hook is read.
const maxHook = 1 << 20

// hookVariables are the names X of {{ env.X }} that hooks may use.
var hookVariables = map[string]string{"mount": "", "config": "", "build": "", "spack": ""}

// hook reads a program of the recipe; nil if it has none of that name.
func (l *loader) hook(name string) *Hook {
	data, err := l.readFile(name, maxHook+1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		l.failFile(name, fault.HintOf(err), "cannot be read: %v", err)
		return nil
	case len(data) > maxHook:
		l.failFile(name, "", "is larger than %d MiB", maxHook>>20)
		return nil
	}
	return &Hook{Path: l.path(name), Text: string(data)}
}

// template reads a hook whose {{ env.X }} are replaced, and checks these.
func (l *loader) template(name string) *Hook {
	h := l.hook(name)
	if h == nil {
		return nil
	}
	if i := bytes.IndexByte([]byte(h.Text), 0); i >= 0 || !utf8.ValidString(h.Text) {
		l.failFile(name, "have the hook start a program that lies in the recipe", "is not text")
		return h
	}
	_, err := h.Render(hookVariables)
	var problems fault.Problems
	if errors.As(err, &problems) {
		l.Add(problems...)
	}
	return h
}

var (
	templateMark = regexp.MustCompile(`\{[{%#]`)
	envReference = regexp.MustCompile(`^\{\{[ \t\n]*env[ \t\n]*\.[ \t\n]*(\w+)[ \t\n]*\}\}`)
	lineEnds     = strings.NewReplacer("\r\n", "\n", "\r", "\n")
)

// Render returns the hook's text with {{ env.X }} replaced by vars[X], lines
// ending in a newline and one newline at the end. Upstream renders hooks as Jinja
// templates, so what else that language would act on is an error, not text:
// fault.Problems with the place of each.
func (h Hook) Render(vars map[string]string) (string, error) {
	text := strings.TrimSuffix(lineEnds.Replace(h.Text), "\n") + "\n"
	var out strings.Builder
	var problems fault.Problems
	fail := func(at int, hint, format string, args ...any) {
		line, column := position(text, at)
		problems = append(problems, fault.Problem{File: h.Path, Line: line, Column: column, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
	at := 0
	for {
		mark := templateMark.FindStringIndex(text[at:])
		if mark == nil {
			break
		}
		start := at + mark[0]
		out.WriteString(text[at:start])
		at = start + 2
		m := envReference.FindStringSubmatch(text[start:])
		if m == nil {
			fail(start, "only {{ env.X }} is replaced, X being "+strings.Join(names(vars), ", "), "template syntax '%s' is not supported", text[start:at])
			continue
		}
		value, ok := vars[m[1]]
		if !ok {
			fail(start, suggest(m[1], names(vars)), "unknown variable 'env.%s'", m[1])
		}
		out.WriteString(value)
		at = start + len(m[0])
	}
	out.WriteString(text[at:])
	if len(problems) > 0 {
		return "", problems
	}
	return out.String(), nil
}

func names(vars map[string]string) []string { return slices.Sorted(maps.Keys(vars)) }

// position returns the line and column of an offset, both from 1.
func position(text string, offset int) (line, column int) {
	before := text[:offset]
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
}
