package yamlpos

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"uenv-ci.dev/internal/fault"
)

// builder turns the parser's nodes into ours.
type builder struct {
	file     string
	problems fault.Problems
	fatal    bool                 // a limit was hit: the tree is not whole
	done     map[*yaml.Node]built // nodes with an anchor
	active   map[*yaml.Node]bool  // those being built: an alias to one is a cycle
	merged   int                  // pairs brought in by merge keys
}

// built is a finished node and its size with every alias expanded.
type built struct {
	node           *Node
	values, height int
}

func (b *builder) problem(n *yaml.Node, message, hint string) {
	if b.fatal {
		return // it would only follow from the limit that was hit
	}
	b.problems = append(b.problems, fault.Problem{File: b.file, Line: n.Line, Column: n.Column, Message: clip(message), Hint: hint})
}

// refuse reports a limit.
func (b *builder) refuse(n *yaml.Node, message string) {
	b.problem(n, message, "")
	b.fatal = true
}

func (b *builder) build(n *yaml.Node, depth int) built {
	if n.Kind == yaml.AliasNode {
		target := n.Alias
		if b.active[target] {
			b.refuse(n, fmt.Sprintf("the alias *%s refers to what contains it", n.Value))
			return b.null(n)
		}
		n = target
	}
	r, ok := b.done[n]
	if !ok {
		if depth > maxDepth || b.fatal {
			b.refuse(n, fmt.Sprintf("is nested more than %d deep", maxDepth))
			return b.null(n)
		}
		if n.Anchor != "" {
			b.active[n] = true
		}
		r = b.convert(n, depth)
		if n.Anchor != "" {
			b.active[n] = false
			b.done[n] = r
		}
	}
	if depth+r.height > maxDepth+1 {
		b.refuse(n, fmt.Sprintf("is nested more than %d deep", maxDepth))
	}
	if r.values > maxValues {
		b.refuse(n, fmt.Sprintf("has more than %d values, counting those behind aliases each time", maxValues))
	}
	return r
}

func (b *builder) null(n *yaml.Node) built {
	return built{&Node{File: b.file, Line: n.Line, Column: n.Column}, 1, 1}
}

func (b *builder) convert(n *yaml.Node, depth int) built {
	r := b.null(n)
	switch n.Kind {
	case yaml.SequenceNode:
		b.checkTag(n, "!!seq")
		r.node.Kind = Sequence
		r.node.Items = make([]*Node, 0, len(n.Content))
		for _, item := range n.Content {
			r.node.Items = append(r.node.Items, b.child(&r, item, depth))
		}
	case yaml.MappingNode:
		b.checkTag(n, "!!map")
		r.node.Kind = Mapping
		b.mapping(&r, n, depth)
	default:
		b.scalar(r.node, n)
	}
	return r
}

// child builds a node below r and adds its size to that of r.
func (b *builder) child(r *built, n *yaml.Node, depth int) *Node {
	c := b.build(n, depth+1)
	r.values = min(r.values+c.values, maxValues+1)
	r.height = max(r.height, c.height+1)
	return c.node
}

func (b *builder) checkTag(n *yaml.Node, want string) {
	if n.Style&yaml.TaggedStyle != 0 && n.Tag != want {
		b.problem(n, fmt.Sprintf("the tag %s is not allowed here", n.Tag), "")
	}
}

func (b *builder) scalar(node *Node, n *yaml.Node) {
	const plain = yaml.Style(0)
	node.Raw = n.Value
	node.Quoted = n.Style&^(yaml.TaggedStyle|yaml.FlowStyle) != plain
	var err error
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		if !strings.Contains(" !!str !!int !!float !!bool !!null !!timestamp ", " "+n.Tag+" ") {
			b.problem(n, fmt.Sprintf("the tag %s is not allowed here", n.Tag), "")
			return
		}
		node.Value, err = tagged(n.Tag, n.Value)
	case node.Quoted:
		node.Value = n.Value
	case strings.Contains(n.Value, "\t"):
		err = errors.New("there is a tab in text without quotes")
	case n.Value == "=" || n.Value == "<<":
		err = fmt.Errorf("%s has a meaning of its own in YAML 1.1 and is not text", n.Value)
	default:
		node.Value, err = resolve(n.Value)
	}
	if err != nil {
		b.problem(n, err.Error(), "put it between quotes if it is meant as text")
	}
}

// mapping fills r.node.Pairs: first what merge keys bring in, then the mapping's
// own pairs, which replace merged ones in place, as PyYAML does.
func (b *builder) mapping(r *built, n *yaml.Node, depth int) {
	own := make([]Pair, 0, len(n.Content)/2)
	first := map[any]int{} // index in own
	var merged []Pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Tag == "!!merge" {
			merged = append(merged, b.merge(r, v, depth)...)
			continue
		}
		key, value := b.child(r, k, depth), b.child(r, v, depth)
		if key.Kind != Scalar {
			b.problem(k, fmt.Sprintf("a %s cannot be the key of a mapping", key.Kind), "put text that starts with a bracket or brace between quotes")
			continue
		}
		h := hashable(key.Value)
		if i, ok := first[h]; ok {
			b.duplicate(k, own[i])
			own[i].Value = value
			continue
		}
		first[h] = len(own)
		own = append(own, Pair{key, value})
	}
	r.node.Pairs = own
	if len(merged) > 0 {
		r.node.Pairs = overlay(merged, own)
	}
}

// duplicate reports a key that is given again. PyYAML silently takes the last
// value; where the one before is empty, nothing is lost by that.
func (b *builder) duplicate(k *yaml.Node, before Pair) {
	b.problem(k, fmt.Sprintf("duplicate key '%s', first given at %d:%d", k.Value, before.Key.Line, before.Key.Column), "")
	if before.Value.IsNull() && !b.fatal {
		p := &b.problems[len(b.problems)-1]
		p.Severity, p.Rule, p.Hint = fault.Warning, "duplicate-key", "remove the empty one"
	}
}

// merge returns the pairs that the value of a merge key brings in. Of a list,
// the first mapping wins.
func (b *builder) merge(r *built, v *yaml.Node, depth int) []Pair {
	const complaint = "a merge key (<<) needs a mapping or a list of mappings"
	source := b.child(r, v, depth)
	switch source.Kind {
	case Mapping:
		return b.take(v, source)
	case Sequence:
		var pairs []Pair
		for i := len(source.Items) - 1; i >= 0; i-- {
			if source.Items[i].Kind != Mapping {
				b.problem(v, complaint, "")
				return nil
			}
			pairs = append(pairs, b.take(v, source.Items[i])...)
		}
		return pairs
	default:
		b.problem(v, complaint, "")
		return nil
	}
}

// take counts the pairs of a merged mapping against the limit.
func (b *builder) take(at *yaml.Node, source *Node) []Pair {
	if b.merged += len(source.Pairs); b.merged > maxValues {
		b.refuse(at, fmt.Sprintf("has more than %d values, counting those brought in by merge keys each time", maxValues))
		return nil
	}
	return source.Pairs
}

// overlay joins two lists of pairs; the last value of a key wins, at the place
// of the first.
func overlay(base, over []Pair) []Pair {
	pairs := make([]Pair, 0, len(base)+len(over))
	at := make(map[any]int, cap(pairs))
	for _, list := range [][]Pair{base, over} {
		for _, p := range list {
			h := hashable(p.Key.Value)
			if i, ok := at[h]; ok {
				pairs[i] = p
				continue
			}
			at[h] = len(pairs)
			pairs = append(pairs, p)
		}
	}
	return pairs
}
