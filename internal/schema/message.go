package schema

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/yamlpos"
)

// place is a value of the document, the key it stands below and its path.
type place struct {
	node, key *yamlpos.Node
	path      string
}

// find follows a JSON pointer into the document, as far as it leads.
func (r *reporter) find(pointer string) place {
	at := place{node: r.root}
	for _, part := range split(pointer) {
		switch at.node.Kind {
		case yamlpos.Mapping:
			p, ok := r.pairs(at.node)[part]
			if !ok {
				return at
			}
			at = place{p.Value, p.Key, join(at.path, part)}
		case yamlpos.Sequence:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(at.node.Items) {
				return at
			}
			at = place{at.node.Items[i], nil, fmt.Sprintf("%s[%d]", at.path, i)}
		default:
			return at
		}
	}
	return at
}

// pairs returns the pairs of a mapping by key, kept for the next time: a hostile
// document has many keys, and something wrong with each.
func (r *reporter) pairs(n *yamlpos.Node) map[string]yamlpos.Pair {
	index, ok := r.index[n]
	if !ok {
		index = make(map[string]yamlpos.Pair, len(n.Pairs))
		for _, p := range n.Pairs {
			if key, isText := p.Key.Str(); isText {
				index[key] = p
			}
		}
		r.index[n] = index
	}
	return index
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// name returns what a path is called in messages.
func name(path string) string {
	if path == "" {
		return "the document"
	}
	return "'" + path + "'"
}

// leaf reports one failed keyword.
func (r *reporter) leaf(f failure) {
	at := r.find(f.at)
	switch f.keyword {
	case "required":
		r.required(f.rule, at)
	case "additionalProperties":
		r.unknownKeys(f.rule, at)
	case "type":
		r.add(at.node.Problem(fmt.Sprintf("%s must be %s, not %s", name(at.path), f.rule.Type, describe(at.node)), f.rule.quoteHint(at.node)))
	case "enum":
		r.choice(f.rule, f.rule.Enum, at)
	case "const":
		r.choice(f.rule, []any{f.rule.constant}, at)
	default:
		r.add(at.node.Problem(fmt.Sprintf("%s %s", name(at.path), f.complaint(at)), f.rule.Hint))
	}
}

// complaint completes the sentence that begins with the name of a value.
func (f failure) complaint(at place) string {
	expected := f.rule.Expected
	switch f.keyword {
	case "minItems", "minProperties", "minLength":
		if f.bound <= 1 {
			return "must not be empty"
		}
		return fmt.Sprintf("needs at least %v entries", f.bound)
	case "maxItems", "maxProperties":
		if f.bound == 1 {
			return "must have one entry only"
		}
		return fmt.Sprintf("must have %v entries at most", f.bound)
	case "minimum":
		return fmt.Sprintf("must be %v or more, not %s", f.bound, at.node.Raw)
	case "maximum":
		return fmt.Sprintf("must be %v or less, not %s", f.bound, at.node.Raw)
	case "pattern":
		if expected == "" {
			expected = "text of the form " + f.rule.Pattern.String()
		}
		return fmt.Sprintf("must be %s, not '%s'", expected, at.node.Raw)
	}
	if expected != "" {
		return "must be " + expected
	}
	return "is wrong: " + f.message
}

func (r *reporter) required(x *rule, at place) {
	for _, key := range x.Required {
		if at.node.Get(key) != nil {
			continue
		}
		where := at.node
		if at.key != nil {
			where = at.key
		}
		message := fmt.Sprintf("the key '%s' is missing", key)
		if at.path != "" {
			message += fmt.Sprintf(" in '%s'", at.path)
		}
		r.add(where.Problem(message, x.Hint))
	}
}

// unknownKeys reports the keys that neither properties nor patterns allow.
func (r *reporter) unknownKeys(x *rule, at place) {
	for _, p := range at.node.Pairs {
		key, ok := p.Key.Str()
		if !ok || x.Properties[key] != nil || x.matches(key) {
			continue
		}
		message := fmt.Sprintf("unknown key '%s'", key)
		if at.path != "" {
			message += fmt.Sprintf(" in '%s'", at.path)
		}
		hint := x.keyHint(key)
		if hint == "" && x.Expected != "" {
			message = fmt.Sprintf("the name '%s' must be %s", key, x.Expected)
		}
		r.add(p.Key.Problem(message, hint))
	}
}

// keyHint is the advice for an unknown key.
func (r *rule) keyHint(key string) string {
	if hint := r.Elsewhere[key]; hint != "" {
		return hint
	}
	if near := Nearest(key, slices.Sorted(maps.Keys(r.Properties))); near != "" {
		return fmt.Sprintf("did you mean '%s'?", near)
	}
	return r.Hint
}

// matches tells whether a pattern is about a key.
func (r *rule) matches(key string) bool {
	for p := range r.PatternProperties {
		if p.MatchString(key) {
			return true
		}
	}
	return false
}

// choice reports a value that is none of those that a rule names.
func (r *reporter) choice(x *rule, values []any, at place) {
	var texts, quoted []string
	for _, v := range values {
		if s, ok := v.(string); ok {
			texts = append(texts, s)
			quoted = append(quoted, "'"+s+"'")
			continue
		}
		quoted = append(quoted, literal(v))
	}
	hint := x.Hint
	if s, ok := at.node.Str(); ok {
		if near := Nearest(s, texts); near != "" {
			hint = fmt.Sprintf("did you mean '%s'?", near)
		}
	}
	r.add(at.node.Problem(fmt.Sprintf("%s must be %s, not %s", name(at.path), orList(quoted), describe(at.node)), hint))
}

func literal(v any) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprint(v)
}

// orList joins words as "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

var typeNames = map[string]string{
	"string": "text", "object": "a mapping", "array": "a list", "boolean": "true or false",
	"number": "a number", "integer": "a whole number", "null": "null",
}

// String names the types.
func (t types) String() string {
	words := make([]string, len(t))
	for i, name := range t {
		words[i] = typeNames[name]
	}
	return orList(words)
}

// quoteHint is the advice for text that was not read as text.
func (r *rule) quoteHint(n *yamlpos.Node) string {
	_, isString := n.Value.(string)
	if n.Kind == yamlpos.Scalar && !n.Quoted && !isString && !n.IsNull() && slices.Contains(r.Type, "string") {
		return fmt.Sprintf("write '%s' with the quotes", n.Raw)
	}
	if _, err := strconv.ParseFloat(n.Raw, 64); err == nil && n.Quoted && slices.Contains(r.Type, "number") {
		return fmt.Sprintf("write %s without the quotes", n.Raw)
	}
	return r.Hint
}

// describe says what kind of value a node is.
func describe(n *yamlpos.Node) string {
	switch n.Kind {
	case yamlpos.Sequence:
		return "a list"
	case yamlpos.Mapping:
		return "a mapping"
	}
	switch v := n.Value.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprintf("the boolean %t", v)
	case string:
		return fmt.Sprintf("'%s'", v)
	case int64, *big.Int:
		return fmt.Sprintf("the number %v", v)
	case float64:
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return "a date"
	default:
		return "this"
	}
}
