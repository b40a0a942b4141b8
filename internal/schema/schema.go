// Package schema checks YAML documents against JSON schemas and says what is
// wrong in the words of the document: where, what, and what was probably meant.
package schema

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

// Schema is a compiled JSON schema of draft-07, safe for concurrent use.
//
// Beside the standard keywords it knows three of ours: "x-expected" completes the
// sentence "X must be …" where a pattern, name or choice fails, "x-hint" is the
// advice given with it, "x-elsewhere" maps unknown keys to advice on each.
type Schema struct{ rule *rule }

// Compile reads and compiles the schema name of fsys. It refuses keywords that it does
// not know, and references to anything but definitions of the same schema.
func Compile(fsys fs.FS, name string) (*Schema, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	r, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("schema %s: %w", name, err)
	}
	return &Schema{r}, nil
}

// Validate returns everything that is wrong with a document, in the order of the
// document; nothing if it is right.
func (s *Schema) Validate(n *yamlpos.Node) fault.Problems {
	c := &converter{}
	value := c.value(n, nil)
	problems := c.problems
	r := reporter{root: n, seen: map[string]bool{}, index: map[*yamlpos.Node]map[string]yamlpos.Pair{}}
	r.report(s.rule.check(value, nil))
	problems = append(problems, r.problems...)
	problems.Sort()
	if more := len(problems) - maxProblems; more > 0 {
		problems = append(problems[:maxProblems:maxProblems], n.Problem(fmt.Sprintf("%d more problems like these", more), ""))
	}
	return problems
}

// maxProblems is the number of problems that are told of one document.
const maxProblems = 200

// converter turns a node into values as JSON has them.
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

// pointer returns the way as a JSON pointer.
func (s *step) pointer() string {
	switch {
	case s == nil:
		return ""
	case s.list:
		return s.above.pointer() + "/" + strconv.Itoa(s.item)
	}
	return s.above.pointer() + "/" + escape.Replace(s.key)
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

// reporter turns failures into problems.
type reporter struct {
	root     *yamlpos.Node
	problems fault.Problems
	seen     map[string]bool
	index    map[*yamlpos.Node]map[string]yamlpos.Pair
}

func (r *reporter) report(failures []failure) {
	for _, f := range failures {
		if len(f.alternatives) > 0 && f.rule.Expected == "" {
			r.report(deepest(f.alternatives))
		} else {
			r.leaf(f)
		}
	}
}

// deepest returns the alternative that got furthest into the document: the one
// its author most likely meant.
func deepest(alternatives [][]failure) []failure {
	best, depth := alternatives[0], -1
	for _, a := range alternatives {
		if d := maxDepth(a); d > depth {
			best, depth = a, d
		}
	}
	return best
}

func maxDepth(failures []failure) int {
	d := 0
	for _, f := range failures {
		d = max(d, strings.Count(f.at, "/"))
		for _, a := range f.alternatives {
			d = max(d, maxDepth(a))
		}
	}
	return d
}

func (r *reporter) add(p fault.Problem) {
	if key := p.String(); !r.seen[key] {
		r.seen[key] = true
		r.problems = append(r.problems, p)
	}
}

var (
	escape   = strings.NewReplacer("~", "~0", "/", "~1")
	unescape = strings.NewReplacer("~1", "/", "~0", "~")
)

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

// Lazy returns a function that compiles a schema when it is first called.
func Lazy(fsys fs.FS, name string) func() (*Schema, error) {
	return sync.OnceValues(func() (*Schema, error) { return Compile(fsys, name) })
}
