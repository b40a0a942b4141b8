package meta

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Warnings lists what the client silently drops, reorders or misreads (its 9.x
// reads out of bounds at an unterminated expansion).
func (e Env) Warnings() []string {
	var w []string
	if _, ok := e.Views[e.DefaultView]; !ok && e.DefaultView != "" {
		w = append(w, fmt.Sprintf("default-view: there is no view %q", e.DefaultView))
	}
	for _, view := range e.ViewNames() {
		if env := e.Views[view].Env; env != nil {
			for _, text := range env.Values.warnings() {
				w = append(w, fmt.Sprintf("view %s: %s", view, text))
			}
		}
	}
	return w
}

func (v Variables) warnings() []string {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(v.List)) {
		if !validName(name) {
			add("%q is not a variable name: ignored", name)
		}
		for _, op := range v.List[name] {
			if !slices.Contains([]string{OpSet, OpAppend, OpPrepend, OpUnset}, op.Op) {
				add("%s: unknown operation %q unsets the variable", name, op.Op)
			}
			if slices.ContainsFunc(op.Value, unterminated) {
				add("%s: %s without %s", name, expandOpen, expandClose)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.Scalar)) {
		if !validName(name) {
			add("%q is not a variable name: ignored", name)
		}
		if _, both := v.List[name]; both {
			add("%s: is a list and a scalar; the scalar wins", name)
		}
		value := v.Scalar[name]
		if value == nil {
			continue
		}
		if unterminated(*value) {
			add("%s: %s without %s", name, expandOpen, expandClose)
		}
		for _, other := range references(*value) {
			if _, scalar := v.Scalar[other]; scalar && other != name {
				add("%s: depends on %s, and scalars are set in no defined order", name, other)
			}
		}
	}
	return w
}

func unterminated(s string) bool {
	for {
		_, rest, found := strings.Cut(s, expandOpen)
		if !found {
			return false
		}
		if _, s, found = strings.Cut(rest, expandClose); !found {
			return true
		}
	}
}

// references returns the variables that a value expands.
func references(s string) []string {
	var names []string
	for {
		_, rest, found := strings.Cut(s, expandOpen)
		if !found {
			return names
		}
		name, after, closed := strings.Cut(rest, expandClose)
		if !closed {
			return names
		}
		names, s = append(names, name), after
	}
}
