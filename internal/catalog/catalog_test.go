package catalog

import (
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
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

func squashfs(content string) registry.Artifact {
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
		push(t, reg, l, squashfs(l))
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
	repo, image := push(t, reg, "build::x/1:1@daint%gh200", squashfs("x"))
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
	repo, image := push(t, reg, "build::x/1:1@daint%gh200", squashfs("x"))
	old := meta.Deprecation{Version: 1, State: meta.Active, When: meta.At(time.Now()), Who: "me", Image: image.Digest, Reason: "old"}
	data, err := old.Encode()
	if err != nil {
		t.Fatal(err)
	}
	attachJSON(t, repo, image, meta.TypeDeprecation, meta.DeprecationTitle, data, old.Annotations())
	attachJSON(t, repo, image, meta.TypeReframe, "report.xml", []byte("<testsuites/>"), nil)
	attachJSON(t, repo, image, meta.TypePromotion, meta.PromotionTitle, []byte("{"), nil)
	about, err := Inspect(t.Context(), repo, image)
	if err != nil {
		t.Fatal(err)
	}
	if about.Deprecation == nil || about.Deprecation.Reason != "old" || about.Size != 1 || about.Mount != "/user-environment" || about.Env != nil {
		t.Errorf("got %+v", about)
	}
	if len(about.Attachments) != 3 || len(about.Problems) != 3 {
		t.Errorf("got %v, problems %q", about.Attachments, about.Problems)
	}
}

func TestInspectRefusesWhatIsNoImage(t *testing.T) {
	reg := testRegistry(t)
	a := squashfs("x")
	a.Layers = []registry.Layer{registry.BytesLayer("other.squashfs", "", []byte("x"))}
	repo, image := push(t, reg, "build::x/1:1@daint%gh200", a)
	if _, err := Inspect(t.Context(), repo, image); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestCompareVersions(t *testing.T) {
	ascending := []string{"1.0-rc1", "1.0-rc2", "1.0", "1.0.1", "1.2", "1.10", "23.11", "24.9", "24.11", "24.011.1", "2025.1"}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := CompareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s, %s: got %d", a, b, got)
			}
		}
	}
	if CompareVersions("v2", "v10") >= 0 || CompareVersions("v1", "latest") == 0 {
		t.Error("tags are not ordered")
	}
}
