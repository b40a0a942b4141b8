// Package schema checks YAML documents against JSON schemas and says what is
// wrong in the words of the document: where, what, and what was probably meant.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
	"uenv-ci.dev/schemas"
)

// Schema is a compiled JSON schema of draft-07, safe for concurrent use.
//
// Beside the standard keywords it knows three of ours: "x-expected" completes the
// sentence "X must be …" where a pattern, name or choice fails, "x-hint" is the
// advice given with it, "x-elsewhere" maps unknown keys to advice on each.
type Schema struct {
	compiled *jsonschema.Schema
	source   func() any // the schema as decoded JSON, to look up what a failed keyword says
}

// Compile reads and compiles the schema name of fsys. References to other files
// are not followed.
func Compile(fsys fs.FS, name string) (*Schema, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	s := &Schema{source: sync.OnceValue(func() any {
		var source any
		_ = json.Unmarshal(data, &source) // it has been compiled
		return source
	})}
	c := jsonschema.NewCompiler()
	c.Draft = jsonschema.Draft7
	c.LoadURL = func(url string) (io.ReadCloser, error) { return nil, fmt.Errorf("%s is not loaded", url) }
	if err := c.AddResource(name, bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	if s.compiled, err = c.Compile(name); err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	return s, nil
}

// Validate returns everything that is wrong with a document, in the order of the
// document; nothing if it is right.
func (s *Schema) Validate(n *yamlpos.Node) fault.Problems {
	c := &converter{}
	value := c.value(n, nil)
	problems := c.problems
	err := s.compiled.Validate(value)
	var failed *jsonschema.ValidationError
	switch {
	case errors.As(err, &failed):
		r := reporter{schema: s, root: n, seen: map[string]bool{}, index: map[*yamlpos.Node]map[string]yamlpos.Pair{}}
		r.report(failed)
		problems = append(problems, r.problems...)
	case err != nil:
		problems = append(problems, n.Problem(err.Error(), ""))
	}
	problems.Sort()
	if more := len(problems) - maxProblems; more > 0 {
		problems = append(problems[:maxProblems:maxProblems], n.Problem(fmt.Sprintf("%d more problems like these", more), ""))
	}
	return problems
}

// maxProblems is the number of problems that are reported for one document.
const maxProblems = 200

// converter turns a node into the values that jsonschema takes.
type converter struct{ problems fault.Problems }

// step is the way to a value, made into text only where something is wrong.
type step struct {
	above *step
	key   string // of a mapping
	item  int    // of a list
	list  bool
}

func (s *step) path() string {
	switch {
	case s == nil:
		return ""
	case s.list:
		return fmt.Sprintf("%s[%d]", s.above.path(), s.item)
	}
	return join(s.above.path(), s.key)
}

func (c *converter) value(n *yamlpos.Node, at *step) any {
	switch n.Kind {
	case yamlpos.Sequence:
		items := make([]any, len(n.Items))
		next := step{above: at, list: true}
		for i, item := range n.Items {
			next.item = i
			items[i] = c.value(item, &next)
		}
		return items
	case yamlpos.Mapping:
		m := make(map[string]any, len(n.Pairs))
		next := step{above: at}
		for _, p := range n.Pairs {
			key, ok := p.Key.Str()
			if !ok {
				c.problems = append(c.problems, p.Key.Problem(
					fmt.Sprintf("the key %s is %s, not text", p.Key.Raw, describe(p.Key)), fmt.Sprintf("write '%s' with the quotes", p.Key.Raw)))
				continue
			}
			next.key = key
			m[key] = c.value(p.Value, &next)
		}
		return m
	default:
		return c.scalar(n, at)
	}
}

func (c *converter) scalar(n *yamlpos.Node, at *step) any {
	switch v := n.Value.(type) {
	case *big.Int:
		return json.Number(v.String())
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			c.problems = append(c.problems, n.Problem(fmt.Sprintf("%s cannot be %s", name(at.path()), n.Raw), ""))
			return 0
		}
		return v
	case time.Time:
		return []any{nil} // JSON has no dates: this fits none of the types a date could be meant as
	default:
		return v
	}
}

// reporter turns the tree of failures into problems.
type reporter struct {
	schema   *Schema
	root     *yamlpos.Node
	problems fault.Problems
	seen     map[string]bool
	index    map[*yamlpos.Node]map[string]yamlpos.Pair
}

func (r *reporter) report(e *jsonschema.ValidationError) {
	switch keyword := lastPart(e.KeywordLocation); {
	case (keyword == "anyOf" || keyword == "oneOf") && len(e.Causes) > 0 && r.lookup(parent(fragment(e)), "x-expected") == nil:
		r.report(deepest(e.Causes))
	case len(e.Causes) > 0 && keyword != "anyOf" && keyword != "oneOf":
		for _, cause := range e.Causes {
			r.report(cause)
		}
	default:
		r.leaf(e, keyword)
	}
}

// deepest returns the alternative that got furthest into the document: the one
// its author most likely meant.
func deepest(causes []*jsonschema.ValidationError) *jsonschema.ValidationError {
	best, depth := causes[0], -1
	for _, c := range causes {
		if d := maxDepth(c); d > depth {
			best, depth = c, d
		}
	}
	return best
}

func maxDepth(e *jsonschema.ValidationError) int {
	d := strings.Count(e.InstanceLocation, "/")
	for _, c := range e.Causes {
		d = max(d, maxDepth(c))
	}
	return d
}

func (r *reporter) add(p fault.Problem) {
	if key := p.String(); !r.seen[key] {
		r.seen[key] = true
		r.problems = append(r.problems, p)
	}
}

// fragment returns the JSON pointer of the keyword that failed within its schema.
func fragment(e *jsonschema.ValidationError) string {
	_, f, _ := strings.Cut(e.AbsoluteKeywordLocation, "#")
	return f
}

func parent(pointer string) string {
	return pointer[:max(strings.LastIndexByte(pointer, '/'), 0)]
}

func lastPart(pointer string) string { return pointer[strings.LastIndexByte(pointer, '/')+1:] }

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// split returns the unescaped parts of a JSON pointer.
func split(pointer string) []string {
	if pointer == "" {
		return nil
	}
	parts := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, p := range parts {
		parts[i] = unescape.Replace(p)
	}
	return parts
}

// lookup returns a keyword of the subschema at a pointer, nil if it has none.
func (r *reporter) lookup(pointer, keyword string) any {
	at := r.schema.source()
	for _, part := range split(pointer) {
		switch v := at.(type) {
		case map[string]any:
			at = v[part]
		case []any:
			var i int
			if _, err := fmt.Sscan(part, &i); err != nil || i < 0 || i >= len(v) {
				return nil
			}
			at = v[i]
		}
	}
	m, _ := at.(map[string]any)
	return m[keyword]
}

// Lazy is a schema that is compiled at its first use.
type Lazy func() (*Schema, error)

// Named returns the schema of that name in package schemas.
func Named(name string) Lazy {
	return sync.OnceValues(func() (*Schema, error) { return Compile(schemas.FS, name) })
}

// Validate is Schema.Validate; nothing is wrong with a nil node.
func (l Lazy) Validate(n *yamlpos.Node) fault.Problems {
	if n == nil {
		return nil
	}
	s, err := l()
	if err != nil { // a mistake in this program: its tests compile every schema
		return fault.Problems{n.Problem("cannot be checked: "+err.Error(), "")}
	}
	return s.Validate(n)
}
