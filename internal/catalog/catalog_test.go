package catalog

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

func testRegistry(t *testing.T) *registry.Registry {
	t.Helper()
	reg, err := registry.Open("oci:"+t.TempDir(), registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func push(t *testing.T, reg *registry.Registry, text string, a registry.Artifact) (*registry.Repository, ocispec.Descriptor) {
	t.Helper()
	l := parse(t, text)
	repo, err := reg.Repository(l.Repository())
	if err != nil {
		t.Fatal(err)
	}
	desc, err := repo.Push(t.Context(), a)
	if err == nil && l.Tag != "" {
		err = repo.Tag(t.Context(), desc, l.Tag)
	}
	if err != nil {
		t.Fatal(err)
	}
	return repo, desc
}

func parse(t *testing.T, text string) label.Label {
	t.Helper()
	l, err := label.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(content string) registry.Artifact {
	return registry.Artifact{
		Type:        meta.TypeImage,
		Layers:      []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", []byte(content))},
		Annotations: map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z", meta.AnnotationMount: "/user-environment"},
	}
}

func attachJSON(t *testing.T, repo *registry.Repository, image ocispec.Descriptor, kind, title string, data []byte, annotations map[string]string) {
	t.Helper()
	_, err := repo.Push(t.Context(), registry.Artifact{
		Type: kind, Subject: &image, Annotations: annotations,
		Layers: []registry.Layer{registry.BytesLayer(title, meta.MediaTypeJSON, data)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	reg := testRegistry(t)
	for _, l := range []string{
		"deploy::prgenv-gnu/24.9:v1@daint%gh200", "deploy::prgenv-gnu/24.11:v1@daint%gh200", "deploy::prgenv-gnu/24.11:v10@daint%gh200",
		"deploy::prgenv-gnu/24.11:v2@daint%gh200", "deploy::prgenv-gnu-openmpi/1:v1@eiger%zen2", "build::prgenv-gnu/24.11:7@daint%gh200",
	} {
		push(t, reg, l, imageOf(l))
	}
	for _, c := range []struct {
		pattern string
		exact   bool
		want    []string
	}{
		{"deploy::PRGENV-gnu/24.11", false, []string{"prgenv-gnu/24.11:v10@daint%gh200", "prgenv-gnu/24.11:v2@daint%gh200", "prgenv-gnu/24.11:v1@daint%gh200"}},
		{"deploy::@eiger", false, []string{"prgenv-gnu-openmpi/1:v1@eiger%zen2"}},
		{"deploy::prgenv-gnu:v1", true, []string{"prgenv-gnu/24.11:v1@daint%gh200", "prgenv-gnu/24.9:v1@daint%gh200"}},
		{"build::", false, []string{"prgenv-gnu/24.11:7@daint%gh200"}},
		{"deploy::nothing", false, nil},
		{"deploy::no/1:t@x%y", true, nil},
	} {
		records, err := Find(t.Context(), reg, parse(t, c.pattern), Options{Exact: c.exact})
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
		}
		var got []string
		for _, r := range records {
			r.Label.Namespace = ""
			got = append(got, r.Label.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.pattern, got, c.want)
		}
	}
	if _, err := Find(t.Context(), reg, parse(t, "x"), Options{}); fault.KindOf(err) != fault.Usage {
		t.Errorf("without a namespace: got %v", err)
	}
}

func verdict(system string, state meta.Outcome, when time.Time, image digest.Digest) meta.Verdict {
	cases := []meta.Case{{Name: "t", Outcome: state}}
	d := meta.Decide(cases, "", when)
	return meta.Verdict{
		Version: meta.VerdictVersion, State: d.State, Reason: d.Reason, Counts: d.Counts, When: meta.At(when), System: system,
		Image: meta.Subject{Digest: image}, Runner: meta.Runner{Name: "command"}, Cases: cases,
	}
}

func TestFindShowsTheNewestResultOfEachSystem(t *testing.T) {
	reg := testRegistry(t)
	repo, image := push(t, reg, "build::x/1:1@daint%gh200", imageOf("x"))
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, v := range []meta.Verdict{
		verdict("daint", meta.Passed, day.AddDate(0, 0, 2), image.Digest), verdict("daint", meta.Failed, day, image.Digest),
		verdict("eiger", meta.Failed, day, image.Digest),
	} {
		data, err := v.Encode()
		if err != nil {
			t.Fatal(i, err)
		}
		attachJSON(t, repo, image, meta.TypeReframe, meta.VerdictFile, data, v.Annotations())
	}
	records, err := Find(t.Context(), reg, parse(t, "build::x"), Options{})
	if err != nil || len(records) != 1 {
		t.Fatalf("got %v, %v", records, err)
	}
	r := records[0].Results
	if len(r) != 2 || r[0].System != "daint" || r[0].State != meta.Pass || r[1].State != meta.Fail {
		t.Errorf("got %+v", r)
	}
	if records[0].Problem != "no metadata attached" {
		t.Errorf("got problem %q", records[0].Problem)
	}
}

func TestInspect(t *testing.T) {
	reg := testRegistry(t)
	repo, image := push(t, reg, "build::x/1:1@daint%gh200", imageOf("x"))
	old := meta.Deprecation{Version: 1, State: meta.Active, When: meta.At(time.Now()), Who: "me", Image: image.Digest, Reason: "old"}
	data, err := old.Encode()
	if err != nil {
		t.Fatal(err)
	}
	attachJSON(t, repo, image, meta.TypeDeprecation, meta.DeprecationTitle, data, old.Annotations())
	attachJSON(t, repo, image, meta.TypeReframe, "report.xml", []byte(`<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite></testsuites>`), nil)
	attachJSON(t, repo, image, meta.TypePromotion, meta.PromotionTitle, []byte("{"), nil)
	about, err := Inspect(t.Context(), repo, image)
	if err != nil {
		t.Fatal(err)
	}
	if about.Deprecation == nil || about.Deprecation.Reason != "old" || about.Size != 1 || about.Mount != "/user-environment" || about.Env != nil {
		t.Errorf("got %+v", about)
	}
	if len(about.Attachments) != 3 || len(about.Problems) != 3 || len(about.JUnit) != 1 || about.JUnit[0].Cases != 2 || about.JUnit[0].Failed != 1 {
		t.Errorf("got %v, problems %q", about.Attachments, about.Problems)
	}
}

func TestInspectTellsOfSeveralMetadata(t *testing.T) {
	repo, image := push(t, testRegistry(t), "build::x/1:1@daint%gh200", imageOf("x"))
	for n, env := range []string{`{"mount": "/user-environment"}`, `{"mount": "/x"}`} {
		attachJSON(t, repo, image, meta.TypeMeta, meta.EnvFile, []byte(env), nil)
		about, err := Inspect(t.Context(), repo, image)
		if err != nil || about.Env == nil {
			t.Fatalf("got %+v, %v", about, err)
		}
		if len(about.Problems) != n {
			t.Errorf("%d attached: problems %q", n+1, about.Problems)
		}
	}
}

func TestFindShowsDeprecationsAndForeignResults(t *testing.T) {
	for _, kind := range registrytest.InProcess {
		reg := at(t, registrytest.Start(t, kind))
		repo, image := push(t, reg, "build::x/1:1@daint%gh200", imageOf("x"))
		for i, state := range []string{meta.Active, meta.Withdrawn, meta.Active} {
			d := meta.Deprecation{State: state, When: meta.At(time.Unix(int64(i), 0)), Who: "me", Image: image.Digest, Reason: "old", Replacement: "x/2"}
			data, err := d.Encode()
			if err != nil {
				t.Fatal(err)
			}
			attachJSON(t, repo, image, meta.TypeDeprecation, meta.DeprecationTitle, data, d.Annotations())
		}
		attachJSON(t, repo, image, meta.TypeReframe, "report.xml", []byte("<testsuites/>"), nil)
		records, err := Find(t.Context(), reg, parse(t, "build::x"), Options{})
		if err != nil || len(records) != 1 {
			t.Fatalf("%s: got %v, %v", kind, records, err)
		}
		r := records[0]
		if !r.Deprecated || r.Deprecation == nil || r.Deprecation.Replacement != "x/2" {
			t.Errorf("%s: got %+v", kind, r)
		}
		if len(r.Results) != 1 || r.Results[0].System != "daint" || r.Results[0].State != meta.Untested {
			t.Errorf("%s: got results %+v", kind, r.Results)
		}
	}
}

func at(t *testing.T, address string) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(address, registry.Options{Retry: registry.RetryOptions{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// noCatalog answers as registries do that offer no list of repositories.
func noCatalog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/_catalog") {
			http.Error(w, `{"errors":[{"code":"UNSUPPORTED"}]}`, http.StatusNotFound)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestFindWithoutACatalog(t *testing.T) {
	reg := at(t, registrytest.Start(t, registrytest.Referrers, noCatalog))
	push(t, reg, "deploy::x/1:v1@daint%gh200", imageOf("x"))
	push(t, reg, "deploy::x/2:v1@daint%gh200", imageOf("x"))
	_, err := Find(t.Context(), reg, parse(t, "deploy::x"), Options{})
	if fault.KindOf(err) != fault.Refused || fault.HintOf(err) == "" {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
	for pattern, o := range map[string]Options{
		"deploy::x/1@daint%gh200": {},
		"deploy::x/1":             {Repositories: []string{"deploy/daint/gh200/x/1", "deploy/daint/gh200/x/2", "deploy/daint/gh200/y/1"}},
		"deploy::":                {Repositories: []string{"deploy/daint/gh200/x/1", "deploy/daint/gh200/none/1"}},
	} {
		records, err := Find(t.Context(), reg, parse(t, pattern), o)
		if err != nil || len(records) != 1 || records[0].Label.String() != "deploy::x/1:v1@daint%gh200" {
			t.Errorf("%s: got %v, %v", pattern, records, err)
		}
	}
}

// An image with many tags is read once.
func TestFindAsksNoMoreThanItNeeds(t *testing.T) {
	var counter registrytest.Counter
	reg := at(t, registrytest.Start(t, registrytest.Referrers, counter.Middleware()))
	repo, image := push(t, reg, "build::x/1:1@daint%gh200", imageOf("x"))
	const tags = 20
	for i := range tags {
		if err := repo.Tag(t.Context(), image, "v"+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	counter.Reset()
	records, err := Find(t.Context(), reg, parse(t, "build::"), Options{})
	if err != nil || len(records) != tags+1 {
		t.Fatalf("got %d records, %v", len(records), err)
	}
	// The list of repositories, of tags, a HEAD for each tag, then the manifest and
	// its referrers once each, by API and by tag.
	if n := counter.Count(""); n > tags+1+5 {
		t.Errorf("%d requests for %d tags of one image: %s", n, tags+1, &counter)
	}
}

func TestInspectRefusesWhatIsNoImage(t *testing.T) {
	reg := testRegistry(t)
	a := imageOf("x")
	a.Layers = []registry.Layer{registry.BytesLayer("other.squashfs", "", []byte("x"))}
	repo, image := push(t, reg, "build::x/1:1@daint%gh200", a)
	if _, err := Inspect(t.Context(), repo, image); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}
