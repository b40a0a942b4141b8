package site

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/fault"
)

// Value is a path, an address or a program of the site file in which variables of
// the environment were replaced. A variable that is not set is an error for those
// who need the value, and for nobody else: few commands need all of a site file.
type Value struct {
	text  string
	unset string        // the variable that is not set
	at    fault.Problem // of which only the place is filled in
	given string        // the text before it was made absolute
}

// Literal is the value of a text that has no variables.
func Literal(text string) Value { return Value{text: text} }

// Given tells whether the file has the value.
func (v Value) Given() bool { return v != Value{} }

// Get returns the value, "" if it is not given.
func (v Value) Get() (string, error) {
	if v.unset != "" {
		return "", fault.Problems{v.Problem(fmt.Sprintf("the variable %s is not set", v.unset), "")}
	}
	return v.text, nil
}

// Known returns the value, "" also where a variable of it is not set.
func (v Value) Known() string { return v.text }

// Or returns the value that was given instead of the file's, if any.
func (v Value) Or(instead string) (string, error) {
	if instead != "" {
		return instead, nil
	}
	return v.Get()
}

// Relative tells whether a path was given relative to the file.
func (v Value) Relative() bool { return v.given != "" && !filepath.IsAbs(v.given) }

// Problem is something wrong with the value, at its place in the file.
func (v Value) Problem(message, hint string) fault.Problem {
	p := v.at
	p.Message, p.Hint = message, hint
	return p
}

// expandAll replaces $VAR and ${VAR}; variables that are not set stay as they are, as
// Python's os.path.expandvars leaves them. It returns the first of those.
func expandAll(s string, getenv func(string) string) (expanded, unset string) {
	expanded = variable.ReplaceAllStringFunc(s, func(m string) string {
		name := variable.FindStringSubmatch(m)
		if value := getenv(name[1] + name[2]); value != "" {
			return value
		}
		unset = cmp.Or(unset, m)
		return m
	})
	return expanded, unset
}

// expand is expandAll with the environment, for files whose other readers leave
// variables as they are.
func expand(s string) string {
	expanded, _ := expandAll(s, os.Getenv)
	return expanded
}
