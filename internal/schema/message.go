package schema

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v5"

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
func (r *reporter) leaf(e *jsonschema.ValidationError, keyword string) {
	pointer, err := url.PathUnescape(fragment(e))
	if err != nil {
		pointer = fragment(e)
	}
	schema := parent(pointer)
	at := r.find(e.InstanceLocation)
	switch keyword {
	case "required":
		r.required(schema, at)
	case "additionalProperties":
		r.unknownKeys(schema, at)
	case "type":
		r.add(at.node.Problem(fmt.Sprintf("%s must be %s, not %s", name(at.path), r.types(schema), describe(at.node)), r.quoteHint(schema, at.node)))
	case "enum", "const":
		r.enum(schema, keyword, at)
	default:
		r.add(at.node.Problem(fmt.Sprintf("%s %s", name(at.path), r.complaint(schema, keyword, at, e.Message)), r.text(schema, "x-hint")))
	}
}

// complaint completes the sentence that begins with the name of a value.
func (r *reporter) complaint(schema, keyword string, at place, otherwise string) string {
	expected := r.text(schema, "x-expected")
	number, _ := r.lookup(schema, keyword).(float64)
	switch keyword {
	case "minItems", "minProperties", "minLength":
		if number <= 1 {
			return "must not be empty"
		}
		return fmt.Sprintf("needs at least %v entries", number)
	case "maxItems", "maxProperties":
		if number == 1 {
			return "must have one entry only"
		}
		return fmt.Sprintf("must have %v entries at most", number)
	case "minimum":
		return fmt.Sprintf("must be %v or more, not %s", number, at.node.Raw)
	case "maximum":
		return fmt.Sprintf("must be %v or less, not %s", number, at.node.Raw)
	case "pattern":
		if expected == "" {
			expected = fmt.Sprintf("text of the form %v", r.lookup(schema, "pattern"))
		}
		return fmt.Sprintf("must be %s, not '%s'", expected, at.node.Raw)
	}
	if expected != "" {
		return "must be " + expected
	}
	return "is wrong: " + otherwise
}

func (r *reporter) text(schema, keyword string) string {
	s, _ := r.lookup(schema, keyword).(string)
	return s
}

func (r *reporter) required(schema string, at place) {
	keys, _ := r.lookup(schema, "required").([]any)
	for _, k := range keys {
		key := fmt.Sprint(k)
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
		r.add(where.Problem(message, r.text(schema, "x-hint")))
	}
}

// unknownKeys reports the keys that neither properties nor patterns allow.
func (r *reporter) unknownKeys(schema string, at place) {
	properties, _ := r.lookup(schema, "properties").(map[string]any)
	patterns, _ := r.lookup(schema, "patternProperties").(map[string]any)
	for _, p := range at.node.Pairs {
		key, ok := p.Key.Str()
		if _, isKnown := properties[key]; !ok || isKnown || matchesAny(patterns, key) {
			continue
		}
		message := fmt.Sprintf("unknown key '%s'", key)
		if at.path != "" {
			message += fmt.Sprintf(" in '%s'", at.path)
		}
		hint := r.keyHint(schema, key, properties)
		if expected := r.text(schema, "x-expected"); hint == "" && expected != "" {
			message = fmt.Sprintf("the name '%s' must be %s", key, expected)
		}
		r.add(p.Key.Problem(message, hint))
	}
}

// keyHint is the advice for an unknown key.
func (r *reporter) keyHint(schema, key string, known map[string]any) string {
	elsewhere, _ := r.lookup(schema, "x-elsewhere").(map[string]any)
	if hint, ok := elsewhere[key].(string); ok {
		return hint
	}
	return cmp.Or(Suggest(key, slices.Sorted(maps.Keys(known))), r.text(schema, "x-hint"))
}

func matchesAny(patterns map[string]any, key string) bool {
	for p := range patterns {
		if re, err := regexp.Compile(p); err == nil && re.MatchString(key) {
			return true
		}
	}
	return false
}

func (r *reporter) enum(schema, keyword string, at place) {
	values, ok := r.lookup(schema, keyword).([]any)
	if !ok {
		values = []any{r.lookup(schema, keyword)}
	}
	var texts, quoted []string
	for _, v := range values {
		if s, ok := v.(string); ok {
			texts = append(texts, s)
			quoted = append(quoted, "'"+s+"'")
			continue
		}
		quoted = append(quoted, literal(v))
	}
	hint := r.text(schema, "x-hint")
	if s, ok := at.node.Str(); ok {
		hint = cmp.Or(Suggest(s, texts), hint)
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

// types names the types that a schema allows.
func (r *reporter) types(schema string) string {
	var words []string
	for _, t := range r.allowed(schema) {
		words = append(words, typeNames[t])
	}
	return orList(words)
}

func (r *reporter) allowed(schema string) []string {
	switch t := r.lookup(schema, "type").(type) {
	case string:
		return []string{t}
	case []any:
		words := make([]string, len(t))
		for i := range t {
			words[i] = fmt.Sprint(t[i])
		}
		return words
	default:
		return nil
	}
}

// quoteHint is the advice for text that was not read as text.
func (r *reporter) quoteHint(schema string, n *yamlpos.Node) string {
	_, isString := n.Value.(string)
	if n.Kind == yamlpos.Scalar && !n.Quoted && !isString && !n.IsNull() && slices.Contains(r.allowed(schema), "string") {
		return fmt.Sprintf("write '%s' with the quotes", n.Raw)
	}
	if _, err := strconv.ParseFloat(n.Raw, 64); err == nil && n.Quoted && slices.Contains(r.allowed(schema), "number") {
		return fmt.Sprintf("write %s without the quotes", n.Raw)
	}
	return r.text(schema, "x-hint")
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
