package label

import (
	"errors"
	"reflect"
	"testing"

	"uenv-ci.dev/internal/fault"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Label{
		"":                                   {},
		"prgenv-gnu":                         {Name: "prgenv-gnu"},
		"prgenv-gnu/25.11":                   {Name: "prgenv-gnu", Version: "25.11"},
		"x/1:v1@daint%gh200":                 {Name: "x", Version: "1", Tag: "v1", System: "daint", UArch: "gh200"},
		"x/1:v1%gh200@daint":                 {Name: "x", Version: "1", Tag: "v1", System: "daint", UArch: "gh200"},
		"build::x/1:20786630@daint%gh200":    {Namespace: "build", Name: "x", Version: "1", Tag: "20786630", System: "daint", UArch: "gh200"},
		"@*":                                 {System: "*"},
		"@daint":                             {System: "daint"},
		"%gh200":                             {UArch: "gh200"},
		"service::":                          {Namespace: "service"},
		"x:v1":                               {Name: "x", Tag: "v1"},
		"deploy:::v1":                        {Namespace: "deploy", Tag: "v1"},
		"_x/2025.1-rc1:latest":               {Name: "_x", Version: "2025.1-rc1", Tag: "latest"},
		"QuantumESPRESSO/v7.1:v1@eiger%zen2": {Name: "QuantumESPRESSO", Version: "v7.1", Tag: "v1", System: "eiger", UArch: "zen2"},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseErrorsNameThePart(t *testing.T) {
	for text, want := range map[string]SyntaxError{
		"a b":          {Part: "name", Offset: 1},
		"-x":           {Part: "name", Offset: 0},
		"x/":           {Part: "version", Offset: 2},
		"x/1/2":        {Part: "version", Offset: 3},
		"x/1:.t":       {Part: "tag", Offset: 4},
		"x/1:v1+2":     {Part: "tag", Offset: 6},
		"x@da~int":     {Part: "system", Offset: 4},
		"x@*y":         {Part: "system", Offset: 2},
		"x%gh200%zen2": {Part: "uarch", Offset: 7},
		"x%gh200/1":    {Part: "version", Offset: 7},
		"::x":          {Part: "namespace", Offset: 0},
		"x:v1/2":       {Part: "version", Offset: 4},
		"../../etc":    {Part: "name", Offset: 0},
		"x/..:v1":      {Part: "version", Offset: 2},
		"a::b::c":      {Part: "tag", Offset: 5},
		"é/1":          {Part: "name", Offset: 0},
	} {
		_, err := Parse(text)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("Parse(%q): got %v", text, err)
			continue
		}
		if syntax.Part != want.Part || syntax.Offset != want.Offset || fault.KindOf(err) != fault.Usage || fault.HintOf(err) == "" {
			t.Errorf("Parse(%q): got %s at %d (%v)", text, syntax.Part, syntax.Offset, err)
		}
	}
}

func TestMissing(t *testing.T) {
	l, _ := Parse("x/1@*")
	if got := l.Missing(); !reflect.DeepEqual(got, []string{"tag", "system", "uarch"}) {
		t.Errorf("got %v", got)
	}
}

func TestRepository(t *testing.T) {
	l, _ := Parse("build::x/1:v1@daint%gh200")
	if l.Repository() != "build/daint/gh200/x/1" {
		t.Errorf("got %s", l.Repository())
	}
	back, err := FromRepository(l.Repository(), l.Tag)
	if err != nil || back != l {
		t.Errorf("got %+v, %v", back, err)
	}
	for _, bad := range [][2]string{{"a/b/c/d", "t"}, {"a/b/c/d/e/f", "t"}, {"a/../c/d/e", "t"}, {"a/b/c/d/e", "."}, {"a//c/d/e", "t"}} {
		if _, err := FromRepository(bad[0], bad[1]); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestMatch(t *testing.T) {
	l, _ := Parse("deploy::prgenv-gnu/25.11:v1@daint%gh200")
	for pattern, want := range map[string]bool{
		"": true, "prgenv-gnu": true, "prgenv": false, "@daint": true, "@*": true, "@eiger": false,
		"build::": false, "deploy::prgenv-gnu/25.11:v1@daint%gh200": true, "%zen2": false, "prgenv-gnu:v2": false,
	} {
		p, _ := Parse(pattern)
		if l.Match(p, false) != want {
			t.Errorf("%q: got %v", pattern, !want)
		}
	}
	if p, _ := Parse("PrgEnv"); !l.Match(p, true) {
		t.Error("a prefix did not match")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a/b:c@d%e", "ns::a", "a%e@d", "@*", "x/1/2", ":::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s)
		if err != nil {
			return
		}
		back, err := Parse(l.String())
		if err != nil || back != l {
			t.Errorf("%q → %q → %+v, %v", s, l.String(), back, err)
		}
	})
}

func TestMatchDigest(t *testing.T) {
	const digits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	l, _ := Parse("deploy::x/1:v1@daint%gh200")
	for text, want := range map[string]bool{
		digits[:16]: true, digits: true, "sha256:" + digits: true, "deploy::" + digits[:16] + "@daint": true, digits[:16] + "@*": true,
		digits[:15]: false, digits[:16] + "/1": false, digits[:16] + ":v1": false, digits[1:17]: false,
		digits[:16] + "@eiger": false, "build::" + digits[:16]: false, "x": false, "": false, "ABCDEF0123456789": false,
	} {
		pattern, err := Parse(text)
		if err != nil || l.MatchDigest(pattern, "sha256:"+digits) != want || l.MatchDigest(pattern, "") {
			t.Errorf("%q: not %v, %v", text, want, err)
		}
	}
}

func TestRegistryPath(t *testing.T) {
	for path, want := range map[string]bool{
		"prgenv-gnu/25.11": true, "a": true, "a__b/c--d": true, "20251210": true,
		"": false, "A": false, "a..b": false, "a/": false, "/a": false, "a//b": false, "-a": false, "a-": false, ".a": false, "a_": false, "a___b": false, "ä": false,
	} {
		if RegistryPath(path) != want {
			t.Errorf("%q: not %v", path, want)
		}
	}
}
