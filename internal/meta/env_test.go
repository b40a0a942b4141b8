package meta

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/testdirs"
)

func read(t *testing.T, text string) Env {
	t.Helper()
	e, err := ParseEnv([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// withViews is a file whose views have the given env.values.
func withViews(values ...string) string {
	var views []string
	for i, v := range values {
		views = append(views, `"`+string(rune('a'+i))+`": {"env": {"values": `+v+`}}`)
	}
	return `{"name": "n", "mount": "/user-environment", "views": {` + strings.Join(views, ",") + `}}`
}

func TestApply(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		views   []string
		environ []string
		want    []string
	}{
		"prepend keeps the order of its values and drops repeats and empties": {
			withViews(`{"list": {"PATH": [{"op": "prepend", "value": ["/a", "/b"]}]}, "scalar": {}}`), []string{"a"},
			[]string{"PATH=/usr/bin::/a:/bin"}, []string{"PATH=/a:/b:/usr/bin:/bin"},
		},
		"operations in order": {
			withViews(`{"list": {"L": [{"op": "set", "value": ["/x"]}, {"op": "append", "value": ["/y"]}, {"op": "prepend", "value": ["/w"]}]}, "scalar": {}}`),
			[]string{"a"}, []string{"L=/old"}, []string{"L=/w:/x:/y"},
		},
		"unset last removes, and before a set does not": {
			withViews(`{"list": {"A": [{"op": "set", "value": ["/x"]}, {"op": "unset", "value": []}], "B": [{"op": "unset", "value": []}, {"op": "append", "value": ["/y"]}]}, "scalar": {}}`),
			[]string{"a"}, []string{"A=1", "B=2"}, []string{"B=/y"},
		},
		"an unknown operation unsets": {
			withViews(`{"list": {"A": [{"op": "shuffle", "value": ["/x"]}]}, "scalar": {}}`), []string{"a"}, []string{"A=1", "K=v"}, []string{"K=v"},
		},
		"set to nothing leaves an empty variable": {
			withViews(`{"list": {"A": [{"op": "set", "value": []}]}, "scalar": {}}`), []string{"a"}, nil, []string{"A="},
		},
		"entries without op or value are skipped": {
			withViews(`{"list": {"A": [{"value": ["/x"]}, {"op": "set"}]}, "scalar": {}}`), []string{"a"}, []string{"A=/k"}, []string{"A=/k"},
		},
		"a list without operations leaves the variable alone": {
			withViews(`{"list": {"A": [], "B": [{"value": ["/x"]}]}, "scalar": {}}`), []string{"a"}, []string{"A=/k::/k"}, []string{"A=/k::/k"},
		},
		"scalars set and unset": {
			withViews(`{"list": {}, "scalar": {"A": "1", "B": null}}`), []string{"a"}, []string{"Z=z", "B=2"}, []string{"Z=z", "A=1"},
		},
		"in one view the scalar wins": {
			withViews(`{"list": {"A": [{"op": "prepend", "value": ["/x"]}]}, "scalar": {"A": "s"}}`), []string{"a"}, []string{"A=/k"}, []string{"A=s"},
		},
		"over views lists work on the scalar": {
			withViews(`{"list": {"A": [{"op": "prepend", "value": ["/x"]}]}, "scalar": {}}`, `{"list": {}, "scalar": {"A": "/s"}}`),
			[]string{"a", "b"}, []string{"A=/k"}, []string{"A=/x:/s"},
		},
		"views merge in the order given": {
			withViews(`{"list": {"P": [{"op": "prepend", "value": ["/a"]}]}, "scalar": {"S": "a"}}`, `{"list": {"P": [{"op": "prepend", "value": ["/b"]}]}, "scalar": {"S": "b"}}`),
			[]string{"b", "n:a"}, []string{"P=/k"}, []string{"P=/a:/b:/k", "S=a"},
		},
		"expansion": {
			withViews(`{"list": {"P": [{"op": "prepend", "value": ["${@S@}/bin"]}]}, "scalar": {"S": "${@HOME@}/s${HOME}", "T": "x${@NONE@}y${@1BAD@}z", "U": "u${@HOME"}}`),
			[]string{"a"}, []string{"HOME=/h", "P="}, []string{"HOME=/h", "P=/h/s${HOME}/bin", "S=/h/s${HOME}", "T=xyz", "U=u"},
		},
		"strange names are ignored in a view and kept in the environment": {
			withViews(`{"list": {"A-B": [{"op": "set", "value": ["/x"]}]}, "scalar": {"1A": "x", "": "y"}}`), []string{"a"},
			[]string{"BASH_FUNC_m%%=() { :; }", "junk"}, []string{"BASH_FUNC_m%%=() { :; }"},
		},
		"the last of a repeated variable counts": {
			withViews(`{"list": {}, "scalar": {}}`), []string{"a"}, []string{"A=1", "B=2", "A=3"}, []string{"A=3", "B=2"},
		},
		"a view without env is empty": {
			`{"mount": "/m", "views": {"v": {"description": "d"}}}`, []string{"v"}, []string{"A=1"}, []string{"A=1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, c.file).Apply(c.views, c.environ)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestApplyUnknownView(t *testing.T) {
	e := read(t, withViews(`{"list": {}, "scalar": {}}`))
	_, err := e.Apply([]string{"nope"}, nil)
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(fault.HintOf(err), "a") {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
	if _, err := e.Apply([]string{"other:a"}, nil); err == nil {
		t.Error("a view of another uenv was taken")
	}
}

func TestParseEnvRefusesWhatTheClientRejects(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"not JSON":             {`{`, "unexpected end"},
		"an array":             {`[]`, "not a JSON object"},
		"not UTF-8":            {"{\"mount\": \"/\xff\"}", "not UTF-8"},
		"no mount":             {`{"views": {}}`, "mount: missing"},
		"relative mount":       {`{"mount": "user-environment"}`, "mount"},
		"mount that climbs":    {`{"mount": "/a/../etc"}`, "mount"},
		"null name":            {`{"mount": "/m", "name": null}`, "name: must be a string, is null"},
		"null description":     {`{"mount": "/m", "views": {"v": {"description": null}}}`, "views.v.description: must be a string"},
		"view not an object":   {`{"mount": "/m", "views": {"v": 3}}`, "views.v: must be an object, is a number"},
		"no values":            {`{"mount": "/m", "views": {"v": {"env": {}}}}`, "views.v.env.values: must be an object, is null or missing"},
		"no list":              {withViews(`{"scalar": {}}`), "views.a.env.values.list: must be an object"},
		"no scalar":            {withViews(`{"list": {}}`), "views.a.env.values.scalar: must be an object"},
		"numeric scalar":       {withViews(`{"list": {}, "scalar": {"A": 3}}`), "scalar.A: must be a string or null, is a number"},
		"value not an array":   {withViews(`{"list": {"A": [{"op": "set", "value": "/a"}]}, "scalar": {}}`), "list.A[0].value: must be an array"},
		"value not of strings": {withViews(`{"list": {"A": [{"op": "set", "value": [1]}]}, "scalar": {}}`), "list.A[0].value"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseEnv([]byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Invalid {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseEnvTolerates(t *testing.T) {
	e := read(t, "\ufeff"+`{"mount": "/user-environment/", "description": null, "default-view": null, "modules": null, "views": [], "more": 1}`)
	if e.Name != "unnamed" || len(e.Views) != 0 || e.Modules != nil {
		t.Errorf("got %+v", e)
	}
}

func TestEncodeReadsBackEqual(t *testing.T) {
	one := "1"
	views := map[string]View{
		"default": SpackView("/m/env/default", "d", Variables{
			List:   map[string][]ListOp{"PATH": {{Op: OpPrepend, Value: []string{"/m/bin"}}}, "PYTHONPATH": {{Op: OpSet}}},
			Scalar: map[string]*string{"A": &one, "B": nil},
		}),
		"modules": ModulesView("/m"),
		"spack":   UpstreamView("/m", map[string]*string{"UENV_SPACK_REF": nil}),
	}
	e := Env{Name: "n", Mount: "/m", DefaultView: "default", Modules: &Modules{"/m/modules"}, Views: views}
	text, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := read(t, string(text)).Encode()
	if err != nil || string(again) != string(text) {
		t.Errorf("got %s\nwant %s\n%v", again, text, err)
	}
	for _, want := range []string{`"description": null`, `"value": []`, `"B": null`, `"scalar": {}`, `"UENV_SPACK_CONFIG_PATH": "/m/config"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
}

func TestOverlayPutsTheRecipeLast(t *testing.T) {
	spack, recipe := "s", "r"
	v := Variables{List: map[string][]ListOp{"P": {{OpPrepend, []string{"/s"}}}}, Scalar: map[string]*string{"A": &spack, "B": &spack}}
	got := v.Overlay(Variables{List: map[string][]ListOp{"P": {{OpPrepend, []string{"/r"}}}}, Scalar: map[string]*string{"A": &recipe, "B": nil}})
	if *got.Scalar["A"] != "r" || got.Scalar["B"] != nil || len(got.List["P"]) != 2 || got.List["P"][1].Value[0] != "/r" {
		t.Errorf("got %+v", got)
	}
	if len(v.List["P"]) != 1 {
		t.Error("the receiver was changed")
	}
}

func TestWarnings(t *testing.T) {
	e := read(t, `{"mount": "/m", "default-view": "gone", "views": {"v": {"env": {"values": {
		"list": {"A": [{"op": "mix", "value": ["${@X"]}], "B": []},
		"scalar": {"B": "1", "C": "${@B@}", "9": "x"}}}}}}`)
	want := []string{
		`default-view: there is no view "gone"`,
		`view v: A: unknown operation "mix" unsets the variable`,
		`view v: A: ${@ without @}`,
		`view v: "9" is not a variable name: ignored`,
		`view v: B: is a list and a scalar; the scalar wins`,
		`view v: C: depends on B, and scalars are set in no defined order`,
	}
	if got := e.Warnings(); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// Every env.json.in that upstream generates has the members that we read.
func TestParseEnvOfTheCorpus(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(testdirs.Corpus(t, "."), "golden*", "*", "store", "meta", "env.json.in"))
	if len(files) == 0 {
		t.Fatal("the corpus has none")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := ParseEnv(data)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if e.Name == "" || !strings.HasPrefix(e.Mount, "/user-") || len(e.Views) == 0 {
			t.Errorf("%s: read as %+v", file, e)
		}
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte(withViews(`{"list": {"P": [{"op": "prepend", "value": ["${@A@}"]}]}, "scalar": {"A": "${@B", "C": null}}`)))
	f.Add([]byte(`{"mount": "/m", "views": {"v": null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEnv(data)
		if err != nil {
			return
		}
		e.Warnings()
		if _, err := e.Apply(e.ViewNames(), []string{"A=1:2", "P="}); err != nil {
			t.Errorf("a view of the file is unknown: %v", err)
		}
		text, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseEnv(text); err != nil {
			t.Errorf("what we wrote does not read back: %v\n%s", err, text)
		}
	})
}

// TestValuesDoNotGrowWithoutEnd has variables each of which is the one before it,
// twice: as many bytes as two to the power of their number.
func TestValuesDoNotGrowWithoutEnd(t *testing.T) {
	scalars, lists := Variables{Scalar: map[string]*string{}}, Variables{List: map[string][]ListOp{}}
	value := "xxxxxxxxxx"
	for i := range 40 {
		name := fmt.Sprintf("V%02d", i)
		text := value
		scalars.Scalar[name] = &text
		lists.List[name] = []ListOp{{Op: OpSet, Value: []string{text}}}
		value = "${@" + name + "@}${@" + name + "@}"
	}
	for kind, v := range map[string]Variables{"scalars": scalars, "lists": lists} {
		e := Env{Name: "hostile", Views: map[string]View{"v": SpackView("/v", "", v)}}
		if _, err := e.Apply([]string{"v"}, []string{"A=1"}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
