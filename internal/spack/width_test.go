package spack

import (
	"fmt"
	"testing"
)

func TestWidth(t *testing.T) {
	none := func(Spec) bool { return false }
	for name, want := range map[string]int{
		"spack.lock": 1, // a chain
		"wide.lock":  3,
	} {
		l, err := ParseLock([]byte(read(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Width(none); got != want {
			t.Errorf("%s: %d", name, got)
		}
	}
	l, err := ParseLock([]byte(read(t, "wide.lock")))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Width(func(s Spec) bool { return s.Name == "wide-b" }); got != 2 {
		t.Errorf("one of three is there: %d", got)
	}
	if got := l.Width(func(Spec) bool { return true }); got != 0 {
		t.Errorf("all are there: %d", got)
	}
}

// TestWidthOfGraphs looks at graphs whose widest level is not the greatest set, whose
// packages hang together through what is there, and that are none.
func TestWidthOfGraphs(t *testing.T) {
	for name, test := range map[string]struct {
		needs map[string][]string
		there string
		want  int
	}{
		"nothing":  {nil, "", 0},
		"diamond":  {map[string][]string{"a": nil, "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}, "", 2},
		"levels":   {map[string][]string{"a": nil, "b": {"a"}, "c": {"b"}, "d": nil, "e": {"d"}, "f": nil, "g": {"c", "e", "f"}}, "", 3},
		"skewed":   {map[string][]string{"a": nil, "b": nil, "c": {"a"}, "d": {"a"}, "e": {"a"}}, "", 4},
		"through":  {map[string][]string{"a": nil, "b": {"a"}, "c": {"b"}}, "b", 1},
		"a circle": {map[string][]string{"a": {"b"}, "b": {"a"}}, "", 0},
		"unknown":  {map[string][]string{"a": {"nowhere"}}, "", 1},
	} {
		l := Lock{Specs: map[string]Spec{}}
		for hash, needs := range test.needs {
			l.Specs[hash] = Spec{Name: hash, Hash: hash, Needs: needs}
		}
		if got := l.Width(func(s Spec) bool { return s.Name == test.there }); got != test.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func BenchmarkWidth(b *testing.B) {
	l := Lock{Specs: map[string]Spec{}}
	const n = 500
	for i := range n {
		s := Spec{}
		for j := max(0, i-7); j < i-2; j++ {
			s.Needs = append(s.Needs, fmt.Sprint(j))
		}
		l.Specs[fmt.Sprint(i)] = s
	}
	for b.Loop() {
		l.Width(func(Spec) bool { return false })
	}
}
