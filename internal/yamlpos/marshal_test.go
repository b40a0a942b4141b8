package yamlpos

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMarshal(t *testing.T) {
	v := NewMap(
		"specs", []string{"cmake%gcc", "@8.1.32", "%gcc", "~cuda", "yes", "1e5", "12.10", "", "a: b", "x #y", "fabrics=cxi,rxm", "it's", "a\nb", "é"},
		"nested", []any{[]any{"a", []any{}}, NewMap("k", NewMap(), "l", nil)},
		"map", map[string]any{"b": 1, "a": 2.0},
		"big", 1e21,
		"date", time.Date(2024, 1, 31, 0, 0, 0, 0, dateOnly),
	)
	got, err := Marshal(v, MarshalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := `specs:
- cmake%gcc
- '@8.1.32'
- '%gcc'
- ~cuda
- 'yes'
- 1e5
- '12.10'
- ''
- 'a: b'
- 'x #y'
- fabrics=cxi,rxm
- it's
- "a\nb"
- 'é'
nested:
- - a
  - []
- k: {}
  l: null
map:
  a: 2.0
  b: 1
big: 1.0e+21
date: 2024-01-31
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMarshalSortsAndRefuses(t *testing.T) {
	got, err := Marshal(NewMap("b", 1, "a", NewMap("d", 2, "c", 3)), MarshalOptions{SortKeys: true})
	if err != nil || string(got) != "a:\n  c: 3\n  d: 2\nb: 1\n" {
		t.Errorf("%s %v", got, err)
	}
	for _, bad := range []any{struct{}{}, "\xff", []any{make(chan int)}} {
		if _, err := Marshal(bad, MarshalOptions{}); err == nil {
			t.Errorf("%v was written", bad)
		}
	}
}

func TestMarshalJSON(t *testing.T) {
	v := NewMap("b", []any{int64(1), 2.5, true, nil}, "a", NewMap("<k>", "é\n"), "e", NewMap(), "f", []any{})
	one, err := MarshalJSON(v, 0)
	if err != nil || string(one) != `{"b": [1, 2.5, true, null], "a": {"<k>": "é\n"}, "e": {}, "f": []}`+"\n" {
		t.Errorf("%s %v", one, err)
	}
	two, err := MarshalJSON(v.Sorted(), 2)
	want := "{\n  \"a\": {\n    \"<k>\": \"é\\n\"\n  },\n  \"b\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"e\": {},\n  \"f\": []\n}\n"
	if err != nil || string(two) != want {
		t.Errorf("%s %v", two, err)
	}
	inside, err := json.Marshal(struct{ M *Map }{v})
	if err != nil || !json.Valid(inside) || !strings.Contains(string(inside), `{"b":[1,`) {
		t.Errorf("%s %v", inside, err)
	}
	if _, err := MarshalJSON(math.Inf(1), 0); err == nil {
		t.Error("infinity was written")
	}
}

func TestMap(t *testing.T) {
	m := NewMap("a", 1, "b", NewMap("x", []any{1}), "c", 3)
	c := m.Clone()
	m.Delete("a")
	m.Delete("nothing")
	m.Set("c", 4)
	inner, _ := m.Get("b")
	inner.(*Map).Set("x", 2)
	if got := strings.Join(m.Keys(), ","); got != "b,c" || m.Len() != 2 {
		t.Errorf("keys %s", got)
	}
	if v, ok := m.Get("c"); !ok || v != 4 {
		t.Errorf("c = %v", v)
	}
	kept, _ := c.Get("b")
	if x, _ := kept.(*Map).Get("x"); !reflect.DeepEqual(x, []any{1}) || c.Len() != 3 {
		t.Error("the clone changed with the original")
	}
	var none *Map
	if _, ok := none.Get("a"); ok || none.Len() != 0 || none.Keys() != nil || none.Clone() != nil {
		t.Error("a nil map is not empty")
	}
}

// A map finds its keys in another way once it has many.
func TestMapOfManyKeys(t *testing.T) {
	m := &Map{}
	var want []string
	for i := range 3 * smallMap {
		key := strings.Repeat("k", i+1)
		m.Set(key, nil)
		m.Set(key, i)
		want = append(want, key)
	}
	for i := len(want) - 2; i >= 0; i -= 2 {
		m.Delete(want[i])
		want = slices.Delete(want, i, i+1)
		if got := m.Keys(); !slices.Equal(got, want) {
			t.Fatalf("keys %q, not %q", got, want)
		}
		for _, key := range want {
			if v, ok := m.Get(key); !ok || v != len(key)-1 {
				t.Errorf("%s = %v", key, v)
			}
		}
	}
}

// Values of every kind, put together at random, must come back as they were.
func TestMarshalReadsBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		v := randomValue(rng, 4)
		text, err := Marshal(v, MarshalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n, err := Parse("f", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		again, err := Marshal(n, MarshalOptions{})
		if err != nil || string(again) != string(text) || !reflect.DeepEqual(normal(n.Data()), normal(v)) {
			t.Fatalf("value %#v\nwritten\n%s\nread and written\n%s", v, text, again)
		}
	}
}

// normal replaces maps by lists of entries, which reflect can compare.
func normal(v any) any {
	switch v := v.(type) {
	case *Map:
		list := []any{"map"}
		for _, e := range v.Entries() {
			list = append(list, e.Key, normal(e.Value))
		}
		return list
	case []any:
		list := []any{"list"}
		for _, item := range v {
			list = append(list, normal(item))
		}
		return list
	default:
		return v
	}
}

// randomValue returns a value whose strings are likely to be misread.
func randomValue(rng *rand.Rand, depth int) any {
	switch n := rng.IntN(10); {
	case depth > 0 && n < 3:
		list := make([]any, rng.IntN(4))
		for i := range list {
			list[i] = randomValue(rng, depth-1)
		}
		return list
	case depth > 0 && n < 6:
		m := &Map{}
		for range rng.IntN(4) {
			m.Set(randomString(rng), randomValue(rng, depth-1))
		}
		return m
	case n == 6:
		return []any{nil, true, false, 0.1, -1e300, 1e16, 5e-324, 3.0}[rng.IntN(8)]
	case n == 7:
		return rng.Int64() - rng.Int64()
	default:
		return randomString(rng)
	}
}

func randomString(rng *rand.Rand) string {
	pieces := []string{"a", "12", ".", ":", " ", "-", "#", "'", "\"", "\n", "\t", "é", "\u2028", "😀", "%", "@", "yes", "0x", "1e", "+", "~", "null",
		"{", "}", "[", "]", ",", "&", "*", "!", "|", ">", "?", "\\", "=", "<<", "2024-01-01", "_", "\x00", "\u0085", "\ufeff", "...", "---"}
	var b strings.Builder
	for range rng.IntN(5) {
		b.WriteString(pieces[rng.IntN(len(pieces))])
	}
	if rng.IntN(200) == 0 {
		b.WriteString(strings.Repeat("long ", 300))
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"a: 1\nb: [x, {y: z}]\n", "a: &x {b: *x}", "<<: {a: 1}\n", "- - - a\n", "? [a]\n: b\n", "a: |\n  x\n y", "\t", "%YAML 1.1\n---\na",
		"a: !!int 0b_", "{a: 1, a: 2}", "'", "\"\\x", "a: 1\r\n- b", "a: 12:30:45.5", "# c\n\n- a # d\n# e\n", "2024-13-01 99:99:99",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Parse("f", data)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		text, err := Marshal(n, MarshalOptions{})
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Parse("f", text)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, text)
		}
		if second, _ := Marshal(again, MarshalOptions{}); string(second) != string(text) {
			t.Fatalf("not stable:\n%s\n%s", text, second)
		}
	})
}
