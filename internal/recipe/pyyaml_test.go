package recipe_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/testdirs"
	"uenv-ci.dev/internal/yamlpos"
)

// readAll has PyYAML read texts. It answers with a description of what it read of
// each: types and values, "error" where it refused.
const readAll = `
import datetime, json, sys, yaml
def show(v):
    if v is None: return ["null"]
    if isinstance(v, bool): return ["bool", str(v)]
    if isinstance(v, int): return ["int", str(v)]
    if isinstance(v, float): return ["float", repr(v)]
    if isinstance(v, str): return ["str", v]
    if isinstance(v, datetime.datetime): return ["time", v.isoformat()]
    if isinstance(v, datetime.date): return ["date", v.isoformat()]
    if isinstance(v, list): return ["list"] + [show(x) for x in v]
    if isinstance(v, dict): return ["map"] + [x for k, w in v.items() for x in (show(k), show(w))]
    return ["other"]
def read(text):
    try: return show(yaml.safe_load(text))
    except Exception: return ["error"]
json.dump([read(t) for t in json.load(sys.stdin)], sys.stdout)
`

// pyyaml returns what PyYAML reads of texts.
func pyyaml(t *testing.T, texts []string) []any {
	t.Helper()
	python := "/usr/bin/python3"
	if err := (proc.Cmd{Path: python, Args: []string{"-c", "import yaml"}}).Run(t.Context()); err != nil {
		t.Skipf("PyYAML is not installed: apt-get install python3-yaml (%v)", err)
	}
	in, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	out, err := proc.Cmd{Path: python, Args: []string{"-c", readAll}, Stdin: bytes.NewReader(in)}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var answers []any
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}

// show describes a value as the Python program does.
func show(v any) []any {
	switch v := v.(type) {
	case nil:
		return []any{"null"}
	case bool:
		return []any{"bool", map[bool]string{true: "True", false: "False"}[v]}
	case int64, *big.Int:
		return []any{"int", fmt.Sprint(v)}
	case float64:
		return []any{"float", v}
	case string:
		return []any{"str", v}
	case time.Time:
		if yamlpos.IsDate(v) {
			return []any{"date", v.Format(time.DateOnly)}
		}
		return []any{"time", v}
	case []any:
		list := []any{"list"}
		for _, item := range v {
			list = append(list, show(item))
		}
		return list
	case *yamlpos.Map:
		list := []any{"map"}
		for _, e := range v.Entries() {
			list = append(list, show(e.Key), show(e.Value))
		}
		return list
	}
	return []any{"other"}
}

// same compares our description with that of the Python program, which has no
// floats and times in JSON that would keep every bit.
func same(ours, theirs []any) bool {
	if len(ours) != len(theirs) || ours[0] != theirs[0] {
		return false
	}
	for i := 1; i < len(ours); i++ {
		text, _ := theirs[i].(string)
		switch v := ours[i].(type) {
		case float64:
			f, err := strconv.ParseFloat(text, 64)
			if err != nil || f != v && (f == f || v == v) { // NaN differs from itself
				return false
			}
		case time.Time:
			layout := "2006-01-02T15:04:05.999999"
			if v.Location().String() == "" {
				layout += "-07:00"
			}
			if v.Format(layout) != strings.TrimRight(text, "0") && v.Format(layout) != text {
				return false
			}
		case []any:
			list, ok := theirs[i].([]any)
			if !ok || !same(v, list) {
				return false
			}
		default:
			if !reflect.DeepEqual(v, theirs[i]) {
				return false
			}
		}
	}
	return true
}

// Plain scalars of all kinds have the type and value that PyYAML gives them.
func TestScalarsAreReadAsPyYAMLReadsThem(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	pieces := []string{"0", "1", "7", "9", "12", "60", ".", ":", "_", "-", "+", "e", "E", "x", "b", "o", "f", "0x", "0b", "0o", ".inf", ".nan", "true", "No", "on", "null", "~",
		"2024-01-31", "2023-02-30", " ", "T", "10:20:30", "Z", "+01:00", "a", "@", "%", "=", "<<"}
	var texts []string
	for range 10000 {
		var b strings.Builder
		for range rng.IntN(5) + 1 {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		texts = append(texts, "k: "+b.String()+"\n")
	}
	compare(t, texts)
}

// What Marshal writes is read back by PyYAML as what was written.
func TestPyYAMLReadsWhatIsWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var texts []string
	for range 3000 {
		text, err := yamlpos.Marshal(anyValue(rng, 4), yamlpos.MarshalOptions{SortKeys: rng.IntN(2) == 0})
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	compare(t, texts)
}

func anyValue(rng *rand.Rand, depth int) any {
	pieces := []string{"a", "12", ".", ":", " ", "-", "#", "'", "\"", "\n", "\t", "é", "\u2028", "😀", "%", "@", "yes", "0x", "1e", "~", "{", "}", "[", "]", ",", "&", "*", "!", "|", ">", "?",
		"\\", "=", "<<", "2024-01-01", "_", "\x00", "\u0085", "\ufeff", "...", "---"}
	word := func() string {
		var b strings.Builder
		for range rng.IntN(5) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		return b.String()
	}
	switch n := rng.IntN(9); {
	case depth > 0 && n < 2:
		list := make([]any, rng.IntN(4))
		for i := range list {
			list[i] = anyValue(rng, depth-1)
		}
		return list
	case depth > 0 && n < 4:
		m := yamlpos.NewMap()
		for range rng.IntN(4) {
			m.Set(word(), anyValue(rng, depth-1))
		}
		return m
	case n == 5:
		return []any{nil, true, 0.1, -1e300, 1e16, 5e-324, rng.NormFloat64(), rng.Int64()}[rng.IntN(8)]
	default:
		return word()
	}
}

// Every document of the corpus is read as PyYAML reads it.
func TestRealDocumentsAreReadAsPyYAMLReadsThem(t *testing.T) {
	var texts []string
	err := filepath.WalkDir(testdirs.Corpus(t, "."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		data, err := os.ReadFile(path)
		texts = append(texts, string(data))
		return err
	})
	if err != nil || len(texts) < 100 {
		t.Fatalf("%d documents: %v", len(texts), err)
	}
	compare(t, texts)
}

// compare reads texts with both readers. Where PyYAML refuses, ours must not
// return a value without an error either, except as told below.
func compare(t *testing.T, texts []string) {
	t.Helper()
	wrong := 0
	for i, answer := range pyyaml(t, texts) {
		theirs, _ := answer.([]any)
		node, err := yamlpos.Parse("f", []byte(texts[i]))
		ours := []any{"error"}
		if err == nil {
			ours = show(node.Data())
		}
		if same(ours, theirs) || tolerated(texts[i], theirs) {
			continue
		}
		if wrong++; wrong < 20 {
			t.Errorf("%q: ours %v %v, PyYAML's %v", texts[i], ours, err, theirs)
		}
	}
}

// tolerated are the known differences: we refuse duplicate keys by which a value
// is lost, and read a value "=" or "<<", for which PyYAML's safe loader knows no
// type, as text.
func tolerated(text string, theirs []any) bool {
	_, err := yamlpos.Parse("f", []byte(text))
	value := strings.TrimSpace(strings.TrimPrefix(text, "k:"))
	return err != nil && strings.Contains(err.Error(), "duplicate key") || theirs[0] == "error" && (value == "=" || value == "<<")
}
