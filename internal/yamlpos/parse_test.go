package yamlpos

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

func TestScalars(t *testing.T) {
	huge, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	for _, c := range []struct {
		in   string
		want any
	}{
		{"", nil}, {"~", nil}, {"null", nil}, {"Null", nil}, {"NULL", nil}, {"nULL", "nULL"}, {"~cuda", "~cuda"},
		{"yes", true}, {"On", true}, {"TRUE", true}, {"off", false}, {"No", false}, {"y", "y"}, {"n", "n"}, {"oN", "oN"},
		{"0", int64(0)}, {"12", int64(12)}, {"+7", int64(7)}, {"-3", int64(-3)}, {"1_000", int64(1000)},
		{"0755", int64(0o755)}, {"00", int64(0)}, {"08", "08"}, {"0o14", "0o14"}, {"0x1F", int64(31)}, {"-0b101", int64(-5)},
		{"12:30", int64(750)}, {"1:00:00", int64(3600)}, {"12:60", "12:60"}, {"-1:30", int64(-90)},
		{"12345678901234567890123456789" + "0", huge},
		{"12.10", 12.1}, {"1.", 1.0}, {".5", 0.5}, {"-.5", "-.5"}, {"1e5", "1e5"}, {"1.5e3", "1.5e3"}, {"1.5e+3", 1500.0},
		{"1:30.5", 90.5}, {"-1.5", -1.5}, {".inf", math.Inf(1)}, {"-.INF", math.Inf(-1)}, {"inf", "inf"}, {"1_0.5", 10.5},
		{"25.06.1", "25.06.1"}, {"gcc@12", "gcc@12"}, {"+mpi", "+mpi"}, {".", "."}, {"'='", "="}, {"'<<'", "<<"},
		{"2024-01-31", time.Date(2024, 1, 31, 0, 0, 0, 0, dateOnly)},
		{"2024-1-31", "2024-1-31"},
		{"2024-01-31 10:20:30", time.Date(2024, 1, 31, 10, 20, 30, 0, localTime)},
		{"2024-01-31t10:20:30.25Z", time.Date(2024, 1, 31, 10, 20, 30, 250e6, time.FixedZone("", 0))},
		{"2024-01-31 10:20:30 -05:30", time.Date(2024, 1, 31, 10, 20, 30, 0, time.FixedZone("", -19800))},
		{"'12'", "12"}, {`"yes"`, "yes"}, {"!!str 12", "12"}, {"!!int '12'", int64(12)}, {"!!float 3", 3.0}, {"!!bool 'no'", false},
		{"!!null x", nil}, {"|\n    a\n    b\n", "a\nb\n"}, {">\n    a\n    b\n", "a b\n"},
	} {
		n, err := Parse("f", []byte("k: "+c.in+"\n"))
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		got := n.Get("k").Value
		if w, ok := c.want.(time.Time); ok {
			g, _ := got.(time.Time)
			if !g.Equal(w) || g.Location().String() != w.Location().String() {
				t.Errorf("%q = %v, want %v", c.in, got, w)
			}
			continue
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q = %T %v, want %T %v", c.in, got, got, c.want, c.want)
		}
	}
}

func TestProblems(t *testing.T) {
	deep := strings.Repeat("[", 300) + strings.Repeat("]", 300)
	for _, c := range []struct{ name, in, want string }{
		{"duplicate key", "a: 1\nb: 2\na: 3\n", "f:3:1: duplicate key 'a', first given at 1:1"},
		{"two duplicates", "a: {x: 1, x: 2}\na: 3\n", "f:1:11: duplicate key 'x', first given at 1:5\nf:2:1: duplicate key 'a', first given at 1:1"},
		{"equal numbers", "1: a\ntrue: b\n", "f:2:1: duplicate key 'true', first given at 1:1"},
		{"python tag", "a: !!python/object/apply:os.system [ls]\n", "f:1:4: the tag !!python/object/apply:os.system is not allowed here"},
		{"local tag", "a: !mine x\n", "f:1:4: the tag !mine is not allowed here"},
		{"binary", "a: !!binary aGk=\n", "f:1:4: the tag !!binary is not allowed here"},
		{"wrong tag", "a: !!int abc\n", "f:1:4: 'abc' does not fit its tag !!int (put it between quotes if it is meant as text)"},
		{"no such day", "a: 2024-02-30\n", "f:1:4: '2024-02-30' is not a date of the calendar (put it between quotes if it is meant as text)"},
		{"empty binary number", "a: 0b_\n", "f:1:4: '0b_' is not an integer (put it between quotes if it is meant as text)"},
		{"tab in text", "a: b\tc\n", "f:1:4: there is a tab in text without quotes (put it between quotes if it is meant as text)"},
		{"value mark", "a: =\n", "f:1:4: = has a meaning of its own in YAML 1.1 and is not text (put it between quotes if it is meant as text)"},
		{"merge mark", "a: <<\n", "f:1:4: << has a meaning of its own in YAML 1.1 and is not text (put it between quotes if it is meant as text)"},
		{"two documents", "a: 1\n---\nb: 2\n", "f:3:1: a second document begins here; only one is allowed"},
		{"list as key", "[a, b]: c\n", "f:1:1: a list cannot be the key of a mapping (put text that starts with a bracket or brace between quotes)"},
		{"tab", "a:\n  b: 1\n\tc: 2\n", "f:3:1: not valid YAML: found a tab character that violates indentation (tabs cannot indent YAML: use blanks)"},
		{"percent", "specs:\n- cmake\n- %gcc\n", "f:3:3: not valid YAML: found character that cannot start any token (a value that starts with '%' needs quotes)"},
		{"at sign", "version: @12\n", "f:1:10: not valid YAML: found character that cannot start any token (a value that starts with '@' needs quotes)"},
		{"bracket", "a: 1\nb: [x, y\nc: 2\n", ""},
		{"quote", "a: 1\nb: 'x\nc: 2\n", "f:2:1: not valid YAML: found unexpected end of stream (a quote that opens here is not closed)"},
		{"long quote", "a: 1\nb: 'x\n" + strings.Repeat("c: 2\n", 5000), "f:2:1: not valid YAML: found unexpected end of stream (a quote that opens here is not closed)"},
		{"long name", "a: !" + strings.Repeat("x", 5000) + " b", "f:1:4: the tag !" + strings.Repeat("x", 388) + "…"},
		{"colon", "a: b: c\n", "f:1:1: not valid YAML: mapping values are not allowed in this context (a value with ': ' in it needs quotes; otherwise check the indentation)"},
		{"anchor", "a: 1\nb: *x\n", "f:2:1: not valid YAML: unknown anchor 'x' referenced"},
		{"indentation", "a:\n  b: 1\n c: 2\n", "f:3:2: not valid YAML: did not find expected key (check the indentation, brackets and quotes around this line)"},
		{"latin 1", "a: 1\nb: caf\xe9\n", "f:2:7: byte 0xe9 is not UTF-8 (save the file as UTF-8)"},
		{"utf-16", "\xff\xfea\x00", "f: is UTF-16 text (save it as UTF-8)"},
		{"control", "a: \x01\n", "f:1:4: control character U+0001"},
		{"cycle", "a: &x [*x]\n", "f:1:8: the alias *x refers to what contains it"},
		{"merge cycle", "a: &x\n  <<: *x\n", "f:2:7: the alias *x refers to what contains it"},
		{"merge scalar", "a:\n  <<: 3\n", "f:2:7: a merge key (<<) needs a mapping or a list of mappings"},
		{"too deep", deep, "f:1:201: is nested more than 200 deep"},
		{"too large", strings.Repeat("#", MaxBytes+1), "f: is larger than 10 MiB"},
		{"too many", strings.Repeat("- a\n", maxValues), "f: has more than 200000 lines and values"},
		{"aliases", bomb(), "f:6:5: has more than 200000 values, counting those behind aliases each time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("f", []byte(c.in))
			var problems fault.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("error is %v", err)
			}
			if c.want != "" && err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
			if problems[0].File != "f" {
				t.Errorf("no file in %v", err)
			}
		})
	}
}

// bomb is a text whose aliases expand to 10^9 values.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n")
	for i := 1; i < 9; i++ {
		alias := fmt.Sprintf("*a%d", i-1)
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.Join([]string{alias, alias, alias, alias, alias, alias, alias, alias, alias, alias}, ","))
	}
	return b.String()
}

func TestMergeBombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("m0: &m0 {k0: 1}\n")
	for i := 1; i < 3000; i++ {
		fmt.Fprintf(&b, "m%d: &m%d {<<: *m%d, k%d: 1}\n", i, i, i-1, i)
	}
	if _, err := Parse("f", []byte(b.String())); err == nil {
		t.Error("quadratic merging was accepted")
	}
}

func TestNodeIsReturnedBesideProblemsOfValues(t *testing.T) {
	n, err := Parse("f", []byte("a: 1\na: 2\nb: 3\n"))
	if err == nil || n.Get("b") == nil {
		t.Errorf("node %v, error %v", n, err)
	}
}

func TestEmptyDuplicateIsAWarning(t *testing.T) {
	n, problems := Read("f", []byte("a:\na: 2\n"))
	if n.Get("a").Value != int64(2) || len(n.Pairs) != 1 {
		t.Errorf("the last value did not win: %+v", n)
	}
	if want := "f:2:1: warning: duplicate key 'a', first given at 1:1 (remove the empty one)"; problems.Error() != want || problems[0].Rule == "" {
		t.Errorf("got %s", problems)
	}
	if _, err := Parse("f", []byte("a:\na: 2\n")); err != nil {
		t.Error(err)
	}
}

func TestLineBreaksAndByteOrderMark(t *testing.T) {
	for name, text := range map[string]string{
		"CRLF": "\ufeffa: 1\r\nb:\r\n  - yes\r\n", "CR": "a: 1\rb:\r  - yes\r", "LF": "a: 1\nb:\n  - yes",
	} {
		n, err := Parse("f", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		item := n.Get("b").Items[0]
		if n.Get("a").Value != int64(1) || item.Value != true || item.Line != 3 || item.Column != 5 {
			t.Errorf("%s: item %+v", name, item)
		}
	}
	if _, err := Parse("f", []byte("a: 1\r\na: 2\r\n\tb")); err == nil || !strings.HasPrefix(err.Error(), "f:3:1") {
		t.Errorf("CRLF error position: %v", err)
	}
}

func TestMergeKeys(t *testing.T) {
	n, err := Parse("f", []byte(`
base: &b {x: 1, y: 2}
more: &m {y: 3, z: 4}
one: {y: 9, <<: *b}
two: {<<: [*b, *m], w: 0}
quoted: {"<<": 1}
`))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"one": `{"x": 1, "y": 9}`, "two": `{"y": 2, "z": 4, "x": 1, "w": 0}`, "quoted": `{"<<": 1}`,
	} {
		got, err := MarshalJSON(n.Get(key), 0)
		if err != nil || string(got) != want+"\n" {
			t.Errorf("%s: %s %v, want %s", key, got, err, want)
		}
	}
	if x := n.Get("one").Get("x"); x.Line != 2 {
		t.Errorf("merged value stands in line %d, want that of its anchor", x.Line)
	}
}

func TestEmptyDocuments(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n", "---\n...\n"} {
		n, err := Parse("f", []byte(text))
		if err != nil || !n.IsNull() || n.Line < 1 {
			t.Errorf("%q: %+v %v", text, n, err)
		}
	}
}

func TestSequencesKeepPositions(t *testing.T) {
	n, err := Parse("f", []byte("env:\n  specs:\n  - cmake\n  - 'é': x\n    b: y\n"))
	if err != nil {
		t.Fatal(err)
	}
	b := n.Get("env").Get("specs").Items[1].Get("b")
	if b.Line != 5 || b.Column != 8 {
		t.Errorf("b stands at %d:%d", b.Line, b.Column)
	}
}

// TestLongIntegersAreRefused has integers that would take minutes to be read.
func TestLongIntegersAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"decimal": strings.Repeat("1", 9<<20), "octal": "0" + strings.Repeat("7", 9<<20), "sexagesimal": "1" + strings.Repeat(":1", 4<<20),
	} {
		_, err := Parse("f", []byte("a: "+text))
		if err == nil || !strings.Contains(err.Error(), "an integer has at most") {
			t.Errorf("%s: no error, or another", name)
		}
	}
	if n, err := Parse("f", []byte("a: "+strings.Repeat("9", maxDigits))); err != nil || n.Get("a").Value == nil {
		t.Errorf("%d digits: %v", maxDigits, err)
	}
}
