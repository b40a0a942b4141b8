package meta

import (
	"maps"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// changes are the merged changes of one or more views, in the order in which
// they were merged.
type changes struct {
	list   map[string][]ListOp
	scalar map[string]*string
}

// maxExpanded bounds what all values together come to, in bytes: a few variables can
// double each other without end, and no kernel starts a program with more than 6 MiB.
const maxExpanded = 8 << 20

// Apply returns environ (NAME=value entries) as it is inside the views, which
// are named "view" or "uenv:view". It evaluates exactly like the uenv client:
// the views merge in order, scalars are set first, then lists.
func (e Env) Apply(views, environ []string) ([]string, error) {
	var c changes
	for _, name := range views {
		if err := c.merge(e, name); err != nil {
			return nil, err
		}
	}
	applied, ok := c.apply(environ)
	if !ok {
		return nil, invalid("the views of %s set variables to more than %d MiB", e.Name, maxExpanded>>20)
	}
	return applied, nil
}

// merge adds the changes of a view of e, named "view" or "uenv:view".
func (c *changes) merge(e Env, name string) error {
	view, ok := e.Views[strings.TrimPrefix(name, e.Name+":")]
	if !ok {
		return fault.WithHint(fault.New(fault.NotFound, "view %q does not exist in %s", name, e.Name),
			"its views are: %s", strings.Join(e.ViewNames(), ", "))
	}
	if view.Env == nil {
		return nil
	}
	if c.list == nil {
		c.list, c.scalar = map[string][]ListOp{}, map[string]*string{}
	}
	values := view.Env.Values
	maps.Copy(c.scalar, values.Scalar)
	for name, ops := range values.List {
		if _, both := values.Scalar[name]; !both && len(ops) > 0 { // in one view the scalar wins
			c.list[name] = append(c.list[name], ops...)
		}
	}
	return nil
}

// apply returns environ with the changes made. The order of what was there is
// kept; new variables come last, sorted. It is not ok if values become too large.
func (c changes) apply(environ []string) (applied []string, ok bool) {
	vars := map[string]string{}
	var order []string
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			continue
		}
		if _, seen := vars[name]; !seen {
			order = append(order, name)
		}
		vars[name] = value
	}
	x := &expansion{vars, maxExpanded}
	c.scalars(x)
	c.lists(x)
	if x.left < 0 {
		return nil, false
	}
	known := make(map[string]bool, len(order))
	out := make([]string, 0, len(vars))
	add := func(name string) {
		if value, set := vars[name]; set {
			out = append(out, name+"="+value)
		}
		known[name] = true
	}
	for _, name := range order {
		add(name)
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !known[name] {
			add(name)
		}
	}
	return out, true
}

func (c changes) scalars(x *expansion) {
	for _, name := range slices.Sorted(maps.Keys(c.scalar)) {
		switch value := c.scalar[name]; {
		case !validName(name):
		case value == nil:
			delete(x.vars, name)
		default:
			x.vars[name] = x.expand(*value)
		}
	}
}

func (c changes) lists(x *expansion) {
	for _, name := range slices.Sorted(maps.Keys(c.list)) {
		if !validName(name) {
			continue
		}
		if value, set := evaluate(c.list[name], x.vars[name]); set {
			x.vars[name] = x.expand(value)
		} else {
			delete(x.vars, name)
		}
	}
}

// evaluate applies list operations to a value and tells whether the variable is
// set at the end. Empty and repeated entries are dropped.
func evaluate(ops []ListOp, value string) (string, bool) {
	entries, set := strings.Split(value, ":"), true
	for _, o := range ops {
		switch o.Op {
		case OpSet:
			entries, set = slices.Clone(o.Value), true
		case OpAppend:
			entries, set = slices.Concat(entries, o.Value), true
		case OpPrepend:
			entries, set = slices.Concat(o.Value, entries), true
		default: // the client takes every other operation as unset
			entries, set = nil, false
		}
	}
	seen := map[string]bool{"": true}
	entries = slices.DeleteFunc(entries, func(s string) bool {
		old := seen[s]
		seen[s] = true
		return old
	})
	return strings.Join(entries, ":"), set
}

const expandOpen, expandClose = "${@", "@}"

// expansion gives variables their values.
type expansion struct {
	vars map[string]string
	left int // bytes that values may still come to; below 0 they are cut off
}

// expand replaces ${@VAR@} by the variable's present value, "" if it is not set.
// What follows an opening without an end is dropped.
func (x *expansion) expand(s string) string {
	var b strings.Builder
	add := func(text string) {
		if x.left -= len(text); x.left >= 0 {
			b.WriteString(text)
		}
	}
	for {
		text, rest, found := strings.Cut(s, expandOpen)
		add(text)
		if !found || x.left < 0 {
			return b.String()
		}
		name, after, closed := strings.Cut(rest, expandClose)
		if !closed {
			return b.String()
		}
		if validName(name) {
			add(x.vars[name])
		}
		s = after
	}
}

// validName tells whether the client accepts the name of a variable.
func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
