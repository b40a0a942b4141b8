package schema

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"uenv-ci.dev/internal/yamlpos"
	"uenv-ci.dev/schemas"
)

func TestEverySchemaCompiles(t *testing.T) {
	names, err := fs.Glob(schemas.FS, "*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("schemas: %v %v", names, err)
	}
	for _, name := range names {
		s, err := Compile(schemas.FS, name)
		if err != nil {
			t.Error(err)
			continue
		}
		if m, ok := s.source().(map[string]any); !ok || m["title"] == nil {
			t.Errorf("%s has no title", name)
		}
	}
}

const testSchema = `{
 "type": "object", "additionalProperties": false, "required": ["name", "size"],
 "x-elsewhere": {"mpi": "version 1 has it"},
 "properties": {
  "name": {"type": "string", "minLength": 1},
  "size": {"type": "number", "minimum": 1, "maximum": 3},
  "kind": {"enum": ["roots", "all", true, null]},
  "only": {"const": false},
  "commit": {"type": ["string", "null"]},
  "compiler": {"type": "object", "required": ["version"], "additionalProperties": false, "properties": {"version": {"type": "string", "pattern": "^\\d+$"}}},
  "list": {"type": "array", "minItems": 2, "items": {"type": "string", "pattern": "^gcc", "x-expected": "a gcc"}},
  "vars": {"type": "object", "minProperties": 1, "patternProperties": {"^[A-Z]+$": {"type": "string"}}, "additionalProperties": false, "x-expected": "upper case"},
  "pair": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "x-expected": "given one of a and b"},
  "any": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"deep": {"type": "boolean"}}}]},
  "ref": {"$ref": "#/definitions/a~1b%25"}
 },
 "definitions": {"a/b%": {"type": "boolean"}}
}`

func TestMessages(t *testing.T) {
	s, err := Compile(fstest.MapFS{"s.json": {Data: []byte(testSchema)}}, "s.json")
	if err != nil {
		t.Fatal(err)
	}
	const ok = "name: x\nsize: 1\n"
	for _, c := range []struct{ in, want string }{
		{ok + "kind: true\ncommit: null\nlist: [gcc, gcc]\nvars: {A: b}\npair: {a: 1}\nonly: off\nref: yes", ""},
		{"", "f:1:1: the document must be a mapping, not null"},
		{"name: x", "f:1:1: the key 'size' is missing"},
		{"nam: x\nsize: 1", "f:1:1: the key 'name' is missing\nf:1:1: unknown key 'nam' (did you mean 'name'?)"},
		{ok + "mpi: x\nzzz: 1", "f:3:1: unknown key 'mpi' (version 1 has it)\nf:4:1: unknown key 'zzz'"},
		{ok + "copiler: {}", "f:3:1: unknown key 'copiler' (did you mean 'compiler'?)"},
		{"name: 12.10\nsize: '2'", "f:1:7: 'name' must be text, not the number 12.1 (write '12.10' with the quotes)\nf:2:7: 'size' must be a number, not '2' (write 2 without the quotes)"},
		{"name: 2024-01-31\nsize: 7", "f:1:7: 'name' must be text, not a date (write '2024-01-31' with the quotes)\nf:2:7: 'size' must be 3 or less, not 7"},
		{"name: ''\nsize: .nan", "f:1:7: 'name' must not be empty\nf:2:7: 'size' cannot be .nan\nf:2:7: 'size' must be 1 or more, not .nan"},
		{ok + "kind: rots", "f:3:7: 'kind' must be 'roots', 'all', true or null, not 'rots' (did you mean 'roots'?)"},
		{ok + "only: true", "f:3:7: 'only' must be false, not the boolean true"},
		{ok + "commit: 12", "f:3:9: 'commit' must be text or null, not the number 12 (write '12' with the quotes)"},
		{ok + "compiler: {}", "f:3:1: the key 'version' is missing in 'compiler'"},
		{ok + "compiler:\n  verson: '1'", "f:3:1: the key 'version' is missing in 'compiler'\nf:4:3: unknown key 'verson' in 'compiler' (did you mean 'version'?)"},
		{ok + "compiler: {version: 1x}", `f:3:21: 'compiler.version' must be text of the form ^\d+$, not '1x'`},
		{ok + "list: [llvm]", "f:3:7: 'list' needs at least 2 entries\nf:3:8: 'list[0]' must be a gcc, not 'llvm'"},
		{ok + "vars: {a: b, 12: c}", "f:3:8: the name 'a' must be upper case\nf:3:14: the key 12 is the number 12, not text (write '12' with the quotes)"},
		{ok + "vars: {}", "f:3:7: 'vars' must not be empty"},
		{ok + "pair: {a: 1, b: 2}", "f:3:7: 'pair' must be given one of a and b"},
		{ok + "pair: {}", "f:3:7: 'pair' must be given one of a and b"},
		{ok + "any: {deep: 1}", "f:3:13: 'any.deep' must be true or false, not the number 1"},
		{ok + "ref: x", "f:3:6: 'ref' must be true or false, not 'x'"},
		{"- a", "f:1:1: the document must be a mapping, not a list"},
	} {
		n, err := yamlpos.Parse("f", []byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Validate(n).Error(); got != c.want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", strings.TrimPrefix(c.in, ok), got, c.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	fsys := fstest.MapFS{
		"syntax.json": {Data: []byte(`{`)},
		"type.json":   {Data: []byte(`{"type": "mapping"}`)},
		"remote.json": {Data: []byte(`{"$ref": "http://127.0.0.1:1/x.json"}`)},
	}
	for _, name := range []string{"none.json", "syntax.json", "type.json", "remote.json"} {
		if _, err := Compile(fsys, name); err == nil {
			t.Errorf("%s was compiled", name)
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"compiler", "specs", "unify", "views", "mpi", "gcc", "cray-mpich"}
	for word, want := range map[string]string{
		"copiler": "compiler", "compilers": "compiler", "Specs": "specs", "unfiy": "unify", "view": "views", "mip": "mpi",
		"cray_mpich": "cray-mpich", "network": "", "x": "", "gc": "gcc", strings.Repeat("x", 200): "",
	} {
		if got := Nearest(word, keys); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}
