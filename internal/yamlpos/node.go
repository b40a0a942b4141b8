// Package yamlpos reads YAML 1.1 the way PyYAML does, keeping the position of
// every value, and writes YAML and JSON that PyYAML reads back as equal types.
//
// Recipes and cluster configurations are written for PyYAML. A YAML 1.2 reader
// sees other types in them (on, 0755, 12:30, 1e5), so scalars are resolved here.
package yamlpos

import (
	"fmt"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// Kind tells the three shapes of a Node apart.
type Kind int

// The kinds of a Node.
const (
	Scalar Kind = iota
	Sequence
	Mapping
)

// String returns the name people know the kind by.
func (k Kind) String() string {
	switch k {
	case Sequence:
		return "list"
	case Mapping:
		return "mapping"
	default:
		return "scalar"
	}
}

// Node is a YAML value and where it stands. Aliases and merge keys are resolved:
// what they brought in keeps the position of its anchor.
type Node struct {
	File         string
	Line, Column int // from 1
	Kind         Kind
	// Value of a scalar: nil, bool, int64, *big.Int, float64, string or time.Time.
	Value any
	// Raw is the text of a scalar, without its quotes.
	Raw string
	// Quoted is set for every scalar that is not written in plain style.
	Quoted bool
	Items  []*Node // of a Sequence
	Pairs  []Pair  // of a Mapping, in file order
}

// Pair is one entry of a mapping.
type Pair struct{ Key, Value *Node }

// Get returns the value below a string key of a mapping, nil where there is none.
// It is safe on a nil node and on one that is not a mapping.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for _, p := range n.Pairs {
		if s, ok := p.Key.Value.(string); ok && s == key {
			return p.Value
		}
	}
	return nil
}

// Pairs returns the pairs of a mapping, none of anything else nor of nothing.
func Pairs(n *Node) []Pair {
	if n == nil {
		return nil
	}
	return n.Pairs
}

// Items returns the items of a sequence, none of anything else nor of nothing.
func Items(n *Node) []*Node {
	if n == nil {
		return nil
	}
	return n.Items
}

// Key returns the node of a key itself, for messages that point at it.
func (n *Node) Key(key string) *Node {
	if n == nil {
		return nil
	}
	for _, p := range n.Pairs {
		if s, ok := p.Key.Value.(string); ok && s == key {
			return p.Key
		}
	}
	return nil
}

// IsNull reports whether the node is absent or a null scalar.
func (n *Node) IsNull() bool {
	return n == nil || n.Kind == Scalar && n.Value == nil
}

// Str returns the value of a string scalar; ok is false for anything else.
func (n *Node) Str() (s string, ok bool) {
	if n == nil || n.Kind != Scalar {
		return "", false
	}
	s, ok = n.Value.(string)
	return s, ok
}

// Text returns the value of a string scalar, "" for anything else.
func (n *Node) Text() string {
	s, _ := n.Str()
	return s
}

// OptionalText returns the value of a string scalar, nil for anything else.
func (n *Node) OptionalText() *string {
	if s, ok := n.Str(); ok {
		return &s
	}
	return nil
}

// Texts returns the strings of a sequence, nil for anything else.
func (n *Node) Texts() []string {
	if n == nil || n.Kind != Sequence {
		return nil
	}
	list := make([]string, 0, len(n.Items))
	for _, item := range n.Items {
		if s, ok := item.Str(); ok {
			list = append(list, s)
		}
	}
	return list
}

// Bool returns the value of a boolean scalar, otherwise for anything else.
func (n *Node) Bool(otherwise bool) bool {
	if n != nil {
		if b, ok := n.Value.(bool); ok {
			return b
		}
	}
	return otherwise
}

// Int returns the value of an integer scalar, 0 for anything else.
func (n *Node) Int() int {
	if n != nil {
		if i, ok := n.Value.(int64); ok {
			return int(i)
		}
	}
	return 0
}

// Problem returns a problem that points at the node.
func (n *Node) Problem(message, hint string) fault.Problem {
	p := fault.Problem{Message: clip(message), Hint: clip(hint)}
	if n != nil {
		p.File, p.Line, p.Column = n.File, n.Line, n.Column
	}
	return p
}

// Warning returns a problem that points at the node, with the name of the rule by
// which it is one, and does not make the document invalid.
func (n *Node) Warning(rule, message, hint string) fault.Problem {
	p := n.Problem(message, hint)
	p.Severity, p.Rule = fault.Warning, rule
	return p
}

// Findings collects what is wrong with documents.
type Findings struct{ Problems fault.Problems }

// Add adds problems that were found elsewhere.
func (f *Findings) Add(problems ...fault.Problem) { f.Problems = append(f.Problems, problems...) }

// Fail adds an error at a node.
func (f *Findings) Fail(at *Node, hint, format string, args ...any) {
	f.Add(at.Problem(fmt.Sprintf(format, args...), hint))
}

// Warn adds a warning at a node, with the name of its rule.
func (f *Findings) Warn(at *Node, rule, hint, format string, args ...any) {
	f.Add(at.Warning(rule, fmt.Sprintf(format, args...), hint))
}

// clip shortens a message that quotes overlong input.
func clip(message string) string {
	const limit = 400
	if len(message) <= limit {
		return message
	}
	return strings.ToValidUTF8(message[:limit-len("…")], "") + "…"
}

// Data returns the node as plain values: scalars as in Value, []any and *Map.
func (n *Node) Data() any {
	if n == nil {
		return nil
	}
	switch n.Kind {
	case Sequence:
		items := make([]any, len(n.Items))
		for i, item := range n.Items {
			items[i] = item.Data()
		}
		return items
	case Mapping:
		m := &Map{entries: make([]Entry, 0, len(n.Pairs))}
		for _, p := range n.Pairs {
			m.setKey(p.Key.Data(), p.Value.Data())
		}
		return m
	default:
		return n.Value
	}
}
