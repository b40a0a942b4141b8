package schema

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"testing"
	"testing/fstest"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"uenv-ci.dev/schemas"
)

// other compiles a schema with a complete implementation, which checks it against the
// schema of schemas too.
func other(t *testing.T, fsys fs.FS, name string) *jsonschema.Schema {
	t.Helper()
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.Draft = jsonschema.Draft7
	if err := c.AddResource(name, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Documents of all sorts, right ones and wrong ones, are judged as by a complete
// implementation.
func TestJudgesAsOthers(t *testing.T) {
	names, err := fs.Glob(schemas.FS, "*.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]fs.FS{"every keyword": fstest.MapFS{"every keyword": {Data: []byte(everyKeyword)}}, "test": fstest.MapFS{"test": {Data: []byte(testSchema)}}}
	for _, name := range names {
		all[name] = schemas.FS
	}
	for name, fsys := range all {
		t.Run(name, func(t *testing.T) {
			ours, err := Compile(fsys, name)
			if err != nil {
				t.Fatal(err)
			}
			theirs := other(t, fsys, name)
			g := generator{rand.New(rand.NewPCG(1, 2))}
			right := 0
			const documents = 3000
			for range documents {
				v := g.value(ours.rule, 0)
				failures := ours.rule.check(v, nil)
				err := theirs.Validate(v)
				if (err == nil) != (len(failures) == 0) {
					t.Fatalf("%#v: we say %+v, others %v", v, failures, err)
				}
				if err == nil {
					right++
				}
			}
			if right < documents/100 || right > documents*99/100 {
				t.Errorf("%d of %d documents are right: that tries little", right, documents)
			}
		})
	}
}

const everyKeyword = `{
 "type": ["object", "array"], "minItems": 1, "maxItems": 3, "minProperties": 1, "maxProperties": 4,
 "items": {"type": ["integer", "string", "array"], "minimum": -1, "maximum": 2.5, "minLength": 2, "items": {"const": 1}},
 "properties": {
  "a": {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^x|é"}, {"enum": [1.5, null, true, [1], {"k": 1}]}]},
  "b": {"oneOf": [{"type": "number"}, {"minimum": 2}, {"const": "x"}]},
  "c": {"not": {"type": "string", "minLength": 3}},
  "d": {"if": {"type": "string"}, "then": {"enum": ["x", "xx"]}, "else": {"type": "boolean"}},
  "e": {"$ref": "#/definitions/a~1b%25", "type": "null"}
 },
 "patternProperties": {"^[a-b]+$": {"type": ["string", "number", "null", "object"]}, "^f": {"type": "object", "propertyNames": {"pattern": "^[ab]"}}},
 "additionalProperties": {"type": "integer"},
 "definitions": {"a/b%": {"type": "array", "items": {"$ref": "#/definitions/a~1b%25"}}}
}`

// generator makes documents that mostly fit a rule.
type generator struct{ *rand.Rand }

func (g generator) value(r *rule, depth int) any {
	if r.target != nil {
		return g.value(r.target, depth)
	}
	if depth > 6 || g.IntN(100) == 0 {
		return g.any()
	}
	for _, rules := range [][]*rule{r.AnyOf, r.OneOf} {
		if len(rules) > 0 && g.IntN(2) == 0 {
			return g.merged(g.value(r.without(), depth+1), g.value(rules[g.IntN(len(rules))], depth+1))
		}
	}
	switch {
	case r.Const != nil:
		return r.constant
	case len(r.Enum) > 0:
		return r.Enum[g.IntN(len(r.Enum))]
	case r.Then != nil && g.IntN(2) == 0:
		return g.merged(g.value(r.without(), depth+1), g.value(r.Then, depth+1))
	case len(r.Type) > 0:
		return g.typed(r, r.Type[g.IntN(len(r.Type))], depth)
	case r.Properties != nil:
		return g.typed(r, "object", depth)
	}
	return g.any()
}

// without is a rule without its alternatives.
func (r *rule) without() *rule {
	x := *r
	x.AnyOf, x.OneOf, x.If, x.Then, x.Else = nil, nil, nil, nil, nil
	return &x
}

// merged has the keys of two mappings.
func (g generator) merged(a, b any) any {
	x, ok := a.(map[string]any)
	y, also := b.(map[string]any)
	if !ok || !also {
		return b
	}
	for key, v := range y {
		x[key] = v
	}
	return x
}

func (g generator) typed(r *rule, name string, depth int) any {
	switch name {
	case "null":
		return nil
	case "boolean":
		return g.IntN(2) == 0
	case "integer", "number":
		return []any{int64(0), int64(1), 2.0, 2.5, int64(4096), -1.0, int64(1 << 60)}[g.IntN(7)]
	case "array":
		items := make([]any, g.IntN(3)+g.IntN(2))
		if r.MinItems != nil && len(items) < *r.MinItems && g.IntN(9) > 0 {
			items = make([]any, *r.MinItems)
		}
		for i := range items {
			items[i] = g.any()
			if r.Items != nil {
				items[i] = g.value(r.Items, depth+1)
			}
		}
		return items
	case "object":
		return g.mapping(r, depth)
	}
	text := g.text()
	for range 100 {
		if len(r.checkText(nil, text, nil)) == 0 {
			break
		}
		text = g.text()
	}
	return text
}

func (g generator) mapping(r *rule, depth int) any {
	m := map[string]any{}
	for key, x := range r.Properties {
		if g.IntN(3) == 0 {
			m[key] = g.value(x, depth+1)
		}
	}
	for _, key := range r.Required {
		if x := r.Properties[key]; x != nil && g.IntN(100) > 0 {
			m[key] = g.value(x, depth+1)
		}
	}
	for _, x := range r.PatternProperties {
		if g.IntN(2) == 0 {
			m[g.text()] = g.value(x, depth+1)
		}
	}
	if g.IntN(20) == 0 {
		m[g.text()] = g.any()
	}
	return m
}

func (g generator) text() string {
	return []string{
		"", "x", "xx", "gcc", "gcc@13.2", "a", "ab", "é", "foo", "A", "zen2", "1", "12.1", "https://example.com/x.git", "v1.0",
		"2026-01-02T03:04:05Z", "deploy", "hello/1.0", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "0123456789abcdef0123456789abcdef01234567", "/user-environment",
	}[g.IntN(21)]
}

func (g generator) any() any {
	return []any{
		nil, true, false, int64(3), 1.5, 1.0, "x", g.text(), []any{}, []any{int64(1)}, []any{g.text(), nil}, map[string]any{}, map[string]any{"k": int64(1)}, map[string]any{g.text(): g.text()},
	}[g.IntN(14)]
}
