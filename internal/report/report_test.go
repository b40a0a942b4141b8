package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
	"uenv-ci.dev/schemas"
)

func parse(t *testing.T, text string) label.Label {
	t.Helper()
	l, err := label.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func date(t *testing.T, text string) meta.Date {
	t.Helper()
	d, err := meta.ParseDate(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// image is one that passed; its content is that of its label unless it is changed.
func image(t *testing.T, text, created string, change ...func(*Image)) Image {
	t.Helper()
	i := Image{
		Label: parse(t, text), Digest: digest.FromString(text), Size: 1000, Created: created + "T10:00:00Z",
		Verdict: meta.Pass, Tests: meta.Counts{Total: 3, Passed: 3}, Tested: created + "T11:00:00Z",
	}
	for _, c := range change {
		c(&i)
	}
	return i
}

func failed(i *Image) { i.Verdict, i.Tests = meta.Fail, meta.Counts{Total: 3, Passed: 2, Failed: 1} }

func untested(i *Image) { i.Verdict, i.Tests, i.Tested = meta.Untested, meta.Counts{}, "" }

func content(of string) func(*Image) { return func(i *Image) { i.Digest = digest.FromString(of) } }

func deprecated(t *testing.T, until string) func(*Image) {
	d := &meta.Deprecation{State: meta.Active, Reason: "MPI hangs", Replacement: "prgenv-gnu/25.11:v2"}
	if until != "" {
		day := date(t, until)
		d.Until = &day
	}
	return func(i *Image) { i.Deprecated, i.Deprecation = true, d }
}

func options(t *testing.T) Options {
	t.Helper()
	return Options{Registry: "registry.example.org/uenv", Released: "deploy", Day: date(t, "2026-11-22"), Soon: 90, Restricted: func(n string) bool { return n == "vasp" }}
}

// fleet has one of everything.
func fleet(t *testing.T) []Source {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	deploy := []Image{
		image(t, "deploy::prgenv-gnu/25.11:v2@daint%gh200", "2025-12-01"),
		image(t, "deploy::prgenv-gnu/25.11:v1@daint%gh200", "2026-01-01"), // a later date, and yet the older release
		image(t, "deploy::prgenv-gnu/25.11:v2@santis%gh200", "2025-12-01"),
		image(t, "deploy::prgenv-gnu/25.11:rc1@santis%gh200", "2025-12-01", content("deploy::prgenv-gnu/25.11:v2@santis%gh200")),
		image(t, "deploy::prgenv-gnu/24.7:v1@daint%gh200", "2024-07-01", deprecated(t, "2027-01-31")),
		image(t, "deploy::prgenv-gnu/24.7:v1@santis%gh200", "2024-07-01", deprecated(t, "2026-11-21")),
		image(t, "deploy::prgenv-gnu/24.7:v1@clariden%gh200", "2024-07-01", deprecated(t, "2028-01-31")),
		image(t, "deploy::prgenv-gnu/24.7:v1@eiger%zen2", "2024-07-01", untested),
		image(t, "deploy::cp2k/2025.1:v1@daint%gh200", "2025-03-01", failed),
		image(t, "deploy::vasp/6.5:v1@daint%gh200", "2025-03-01", func(i *Image) { i.Problem = "no metadata\nattached" }),
	}
	build := []Image{
		image(t, "build::prgenv-gnu/25.11:2002@daint%gh200", "2025-12-01", content("deploy::prgenv-gnu/25.11:v2@daint%gh200"), failed),
		image(t, "build::prgenv-gnu/25.11:ab12@santis%gh200", "2025-12-02"),
		image(t, "build::prgenv-gnu/25.11:zz99@santis%gh200", "2025-12-01"), // a hash says nothing, the date does
		image(t, "build::cp2k/2025.1:6@daint%gh200", "2025-02-01", untested),
		image(t, "build::gromacs/2026:7@eiger%zen2", "2026-03-01"),
	}
	return []Source{
		{Namespace: "deploy", From: "index", At: at, Images: deploy},
		{Namespace: "build", From: "registry", At: at.Add(time.Hour), Denied: []string{"build/daint/gh200/secret/1"}, Images: build},
	}
}

func texts(r Report) []string {
	var all []string
	for _, n := range r.Attention {
		all = append(all, fmt.Sprintf("%s %s: %s", n.Kind, n.Label, n.Text))
	}
	return all
}

func TestAttention(t *testing.T) {
	got := texts(Make(fleet(t), options(t)))
	want := []string{
		"unusable deploy::vasp/6.5:v1@daint%gh200: no metadata attached",
		"failing deploy::cp2k/2025.1:v1@daint%gh200: 1 of 3 tests failed",
		"expired deploy::prgenv-gnu/24.7:v1@santis%gh200: support ended on 2026-11-21, replaced by prgenv-gnu/25.11:v2",
		"expiring deploy::prgenv-gnu/24.7:v1@daint%gh200: supported until 2027-01-31, replaced by prgenv-gnu/25.11:v2",
		"missing deploy::prgenv-gnu/25.11@eiger%zen2: older versions are there",
		"untested deploy::prgenv-gnu/24.7:v1@eiger%zen2: no test ran on eiger",
		"untested build::cp2k/2025.1:6@daint%gh200: no test ran on daint",
		"unpromoted build::gromacs/2026:7@eiger%zen2: pass, and not promoted",
		"unpromoted build::prgenv-gnu/25.11:ab12@santis%gh200: pass, and newer than what is promoted",
		"deprecated deploy::prgenv-gnu/24.7:v1@clariden%gh200: supported until 2028-01-31, replaced by prgenv-gnu/25.11:v2",
		"superseded deploy::prgenv-gnu/25.11:v1@daint%gh200: v2 is newer, and users are not told",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The matrix decides what is missing, where there is one.
func TestMissingFromTheMatrix(t *testing.T) {
	o := options(t)
	o.Matrix, o.Wanted = "config.yaml", []label.Label{parse(t, "prgenv-gnu/25.11@clariden%gh200"), parse(t, "prgenv-gnu/25.11@daint%gh200"), parse(t, "icon/1@daint%gh200")}
	r := Make(fleet(t)[:1], o)
	got := []string{}
	for _, n := range r.Of(KindMissing) {
		got = append(got, n.Label.String()+": "+n.Text)
	}
	want := []string{"deploy::icon/1@daint%gh200: the matrix deploys it there", "deploy::prgenv-gnu/25.11@clariden%gh200: the matrix deploys it there"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if r.Namespaces[0].Uenvs[1].Name != "icon" || r.Namespaces[0].Uenvs[1].Cells[0].Missing != InMatrix {
		t.Errorf("got %+v", r.Namespaces[0].Uenvs[1])
	}
	// What is built is no reason to miss anything in the build namespace.
	if r := Make(fleet(t)[1:], o); len(r.Of(KindMissing))+len(r.Of(KindUnpromoted))+len(r.Of(KindSuperseded)) > 0 {
		t.Errorf("build alone: %q", texts(r))
	}
}

// Neither release candidates nor images that users are to leave set an example.
func TestNothingIsMissingWithoutAReason(t *testing.T) {
	for _, images := range [][]Image{
		{image(t, "deploy::a/2:rc1@x%u", "2026-01-01"), image(t, "deploy::a/1:v1@x%u", "2025-01-01"), image(t, "deploy::a/1:v1@y%u", "2025-01-01")},
		{image(t, "deploy::a/2:v1@x%u", "2026-01-01"), image(t, "deploy::a/1:v1@y%u", "2025-01-01", deprecated(t, ""))},
		{image(t, "deploy::a/2:v1@x%u", "2026-01-01"), image(t, "deploy::b/1:v1@y%u", "2025-01-01")},
	} {
		if r := Make([]Source{{Namespace: "deploy", Images: images}}, options(t)); len(r.Of(KindMissing)) > 0 {
			t.Errorf("got %q", texts(r))
		}
	}
}

func TestSupportIsJudgedByTheDay(t *testing.T) {
	for day, want := range map[string]Support{"2026-06-01": Deprecated, "2026-11-03": Expiring, "2027-01-31": Expiring, "2027-02-01": Expired} {
		o := options(t)
		o.Day = date(t, day)
		r := Make([]Source{{Namespace: "deploy", Images: []Image{image(t, "deploy::a/1:v1@x%u", "2025-01-01", deprecated(t, "2027-01-31"))}}}, o)
		if got := r.Namespaces[0].Uenvs[0].Cells[0].Newest.Support; got != want {
			t.Errorf("on %s: got %s, want %s", day, got, want)
		}
	}
}

func TestTotalsCountImagesOnce(t *testing.T) {
	r := Make(fleet(t), options(t))
	deploy := r.Namespaces[0]
	if want := (Totals{10, 9, 9000}); deploy.Totals != want {
		t.Errorf("deploy: got %+v, want %+v", deploy.Totals, want)
	}
	i := slices.IndexFunc(deploy.Targets, func(t Target) bool { return t.System == "santis" })
	if want := (Totals{3, 2, 2000}); deploy.Targets[i].Totals != want {
		t.Errorf("santis: got %+v, want %+v", deploy.Targets[i].Totals, want)
	}
	if want := (Totals{15, 13, 13000}); r.Totals != want { // one is in both namespaces
		t.Errorf("all: got %+v, want %+v", r.Totals, want)
	}
}

func TestOrderDoesNotDependOnThatOfTheImages(t *testing.T) {
	want, err := json.Marshal(Make(fleet(t), options(t)))
	if err != nil {
		t.Fatal(err)
	}
	sources := fleet(t)
	slices.Reverse(sources[0].Images)
	slices.Reverse(sources[1].Images)
	if got, err := json.Marshal(Make(sources, options(t))); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v:\n%s\n%s", err, got, want)
	}
}

// The document is as its schema says, which allows no more and no less.
func TestSchema(t *testing.T) {
	compiled, err := schema.Compile(schemas.FS, "report.json")
	if err != nil {
		t.Fatal(err)
	}
	o := options(t)
	o.Matrix, o.Wanted = "config.yaml", []label.Label{parse(t, "icon/1@daint%gh200")}
	for name, r := range map[string]Report{"fleet": Make(fleet(t), o), "empty": Make([]Source{{Namespace: "deploy", From: "index"}}, options(t))} {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		root, problems := yamlpos.Read(name, data)
		if problems = append(problems, compiled.Validate(root)...); len(problems) > 0 {
			t.Errorf("%v in\n%s", problems, data)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (UPDATE_GOLDEN=1 writes it again):\n%s", path, got)
	}
}
