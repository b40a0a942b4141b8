package promote

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
	"uenv-ci.dev/internal/site"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func parse(t *testing.T, text string) label.Label {
	t.Helper()
	l, err := label.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func open(t *testing.T, address string) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(address, registry.Options{Retry: registry.RetryOptions{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func repository(t *testing.T, reg *registry.Registry, l label.Label) *registry.Repository {
	t.Helper()
	repo, err := reg.Repository(l.Repository())
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// shop is an image in a build namespace, ready to be promoted.
type shop struct {
	t       *testing.T
	reg     *registry.Registry
	request Request
}

// image pushes an image with metadata; content makes it different from others.
func image(t *testing.T, reg *registry.Registry, content string) *shop {
	t.Helper()
	s := &shop{t: t, reg: reg}
	s.request = Request{
		From: parse(t, "build::hello/1.0:42@daint%gh200"), To: parse(t, "deploy::hello/1.0:v1@daint%gh200"),
		Who: "staff", Tool: "uenv-ci test", Now: func() time.Time { return now },
	}
	s.request.Source, s.request.Target = repository(t, reg, s.request.From), repository(t, reg, s.request.To)
	s.request.Image = s.push(registry.Artifact{Type: meta.TypeImage, Layers: []registry.Layer{
		registry.BytesLayer(meta.ImageTitle, ocispec.MediaTypeImageLayer, []byte("hsqs"+content)),
	}})
	if err := s.request.Source.Tag(t.Context(), s.request.Image, s.request.From.Tag); err != nil {
		t.Fatal(err)
	}
	s.attach(meta.TypeMeta, nil, s.directory(meta.MetaTitle, "env.json", `{"name": "hello", "mount": "/user-environment", "views": {"default": {}}}`))
	return s
}

func (s *shop) push(a registry.Artifact) ocispec.Descriptor {
	s.t.Helper()
	d, err := s.request.Source.Push(s.t.Context(), a)
	if err != nil {
		s.t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func (s *shop) attach(kind string, annotations map[string]string, layer registry.Layer) ocispec.Descriptor {
	s.t.Helper()
	return s.push(registry.Artifact{Type: kind, Subject: &s.request.Image, Annotations: annotations, Layers: []registry.Layer{layer}})
}

func (s *shop) directory(title, name, text string) registry.Layer {
	s.t.Helper()
	l, err := registry.DirectoryLayer(title, fstest.MapFS{name: {Data: []byte(text), Mode: 0o644}}, now)
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// tested attaches results on the destination's system.
func (s *shop) tested(change func(*meta.Verdict), outcomes ...meta.Outcome) *shop {
	s.t.Helper()
	v := meta.Verdict{When: meta.At(now), System: s.request.To.System, UArch: s.request.To.UArch, Suite: "recipe", Image: meta.Subject{Digest: s.request.Image.Digest}, Runner: meta.Runner{Name: "command"}}
	for i, o := range outcomes {
		v.Cases = append(v.Cases, meta.Case{Name: string(rune('a' + i)), Outcome: o})
	}
	if change != nil {
		change(&v)
	}
	if v.State == "" {
		d := v.Decide(now)
		v.State, v.Counts = d.State, d.Counts
	}
	text, err := v.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	s.attach(meta.TypeReframe, v.Annotations(), s.directory(meta.ReframeTitle, "verdict.json", string(text)))
	return s
}

// refusedBy decides and returns the names of the rules that refuse.
func (s *shop) refusedBy() (string, Decision) {
	s.t.Helper()
	d, err := Decide(s.t.Context(), s.request)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, r := range d.Rules {
		if r.Outcome == meta.RuleRefused {
			names = append(names, r.Rule)
		}
		if r.Reason == "" {
			s.t.Errorf("rule %s gives no reason", r.Rule)
		}
	}
	if d.Allowed != (len(names) == 0) {
		s.t.Errorf("allowed is %v with %v refusing", d.Allowed, names)
	}
	return strings.Join(names, " "), d
}

func reason(d Decision, rule string) string {
	i := slices.IndexFunc(d.Rules, func(r meta.RuleResult) bool { return r.Rule == rule })
	return d.Rules[i].Reason
}

func layout(t *testing.T) *registry.Registry {
	t.Helper()
	return open(t, "oci:"+t.TempDir())
}

func TestPromote(t *testing.T) {
	addresses := map[string]string{"layout": "oci:" + t.TempDir()}
	for _, kind := range registrytest.InProcess {
		addresses[string(kind)] = registrytest.Start(t, kind)
	}
	for name, address := range addresses {
		t.Run(name, func(t *testing.T) {
			s := image(t, open(t, address), name).tested(nil, meta.Passed, meta.Skipped)
			s.request.Rules.Site = digest.FromString("site file")
			first, err := Apply(t.Context(), s.request)
			if err != nil {
				t.Fatal(err)
			}
			s.promoted(first)
			again, err := Apply(t.Context(), s.request)
			if err != nil || !again.Already || again.Record.When != first.Record.When {
				t.Errorf("again: %+v, %v", again, err)
			}
			s.promoted(again)
		})
	}
}

// promoted checks what a promotion must leave at the destination.
func (s *shop) promoted(r Result) {
	s.t.Helper()
	ctx, to := s.t.Context(), s.request.Target
	for _, tag := range []string{"v1", registry.KeepTag(s.request.Image.Digest)} {
		if d, err := to.Resolve(ctx, tag); err != nil || d.Digest != s.request.Image.Digest {
			s.t.Errorf("%s is %s, %v", tag, d.Digest, err)
		}
	}
	if tags, err := to.Tags(ctx); err != nil || !slices.Equal(tags, []string{"v1"}) {
		s.t.Errorf("users see the tags %v, %v", tags, err)
	}
	attached, err := to.Referrers(ctx, s.request.Image, "")
	if err != nil {
		s.t.Fatal(err)
	}
	var types []string
	for _, a := range attached {
		types = append(types, a.ArtifactType)
	}
	slices.Sort(types)
	if want := []string{meta.TypeMeta, meta.TypePromotion, meta.TypeReframe}; !slices.Equal(types, want) {
		s.t.Errorf("attached are %v, want %v", types, want)
	}
	records, problems, err := meta.Promotions(ctx, to, s.request.Image)
	if err != nil || len(records) != 1 || len(problems) != 0 {
		s.t.Fatalf("records %+v, %v, %v", records, problems, err)
	}
	p := records[0]
	if p.Who != "staff" || p.From.Tag != "42" || p.To.String() != "deploy/daint/gh200/hello/1.0:v1" || len(p.Rules) != 7 || p.Site != s.request.Rules.Site || p.Tool != "uenv-ci test" {
		s.t.Errorf("record %+v", p)
	}
	if r.Record.Who != "staff" || !r.Allowed || len(r.Evidence) != 1 || r.Evidence[0].State != meta.Pass {
		s.t.Errorf("result %+v", r)
	}
	if back, _, err := meta.Promotions(ctx, s.request.Source, s.request.Image); err != nil || len(back) != 0 {
		s.t.Errorf("the source has records %v, %v", back, err)
	}
}

func TestPromoteBetweenRegistries(t *testing.T) {
	s := image(t, layout(t), "x").tested(nil, meta.Passed)
	s.request.Target = repository(t, open(t, registrytest.Start(t, registrytest.Referrers)), s.request.To)
	r, err := Apply(t.Context(), s.request)
	if err != nil || r.Copy.Bytes == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.promoted(r)
}

func TestRules(t *testing.T) {
	fail := func(name string) func(*meta.Verdict) {
		return func(v *meta.Verdict) {
			v.Cases = append(v.Cases, meta.Case{Name: name, Outcome: meta.Failed, Waiver: &meta.Waiver{Test: name, Reason: "of the results"}})
			v.State, v.Counts = meta.Waived, meta.Counts{Total: 2, Passed: 1, Waived: 1}
		}
	}
	until, err := meta.ParseDate("2026-11-21")
	if err != nil {
		t.Fatal(err)
	}
	waiver := Waiver{Waiver: meta.Waiver{Test: "flop*", Reason: "issue 1", Until: &until}}
	for name, c := range map[string]struct {
		change func(s *shop)
		by     string
		says   string
	}{
		"good":              {func(s *shop) { s.tested(nil, meta.Passed) }, "", "pass on daint%gh200: 1 of 1 tests passed"},
		"untested":          {func(s *shop) {}, RuleTests, "no test results on daint%gh200"},
		"no test ran":       {func(s *shop) { s.tested(nil, meta.Skipped) }, RuleTests, "untested on daint%gh200: no test ran: 1 skipped"},
		"failed":            {func(s *shop) { s.tested(nil, meta.Passed, meta.Failed) }, RuleTests, "tests failed on daint%gh200: 1 of 2 tests passed, 1 failed (b)"},
		"on another system": {func(s *shop) { s.tested(func(v *meta.Verdict) { v.System = "eiger" }, meta.Passed) }, RuleTests, "no test results on daint%gh200"},
		"for another uarch": {func(s *shop) { s.tested(func(v *meta.Verdict) { v.UArch = "zen2" }, meta.Passed) }, RuleTests, "are for zen2, not for gh200"},
		"of another image": {func(s *shop) {
			s.tested(func(v *meta.Verdict) { v.Image.Digest = digest.FromString("x") }, meta.Passed)
		}, RuleTests, "its verdict is about the image"},
		"of no image":    {func(s *shop) { s.tested(func(v *meta.Verdict) { v.Image.Digest = "" }, meta.Passed) }, RuleTests, "(not named)"},
		"runner crashed": {func(s *shop) { s.tested(func(v *meta.Verdict) { v.Runner.Failure = "crash" }, meta.Passed) }, RuleTests, "crash; 1 of 1"},
		"a lying document": {func(s *shop) {
			s.tested(func(v *meta.Verdict) { v.State, v.Counts = meta.Pass, meta.Counts{Total: 1, Passed: 1} }, meta.Failed)
		}, RuleTests, "1 failed (a)"},
		"the newest counts": {func(s *shop) {
			s.tested(nil, meta.Failed).tested(func(v *meta.Verdict) { v.When = meta.At(now.Add(-time.Hour)) }, meta.Passed)
		}, RuleTests, "1 failed (a)"},
		"mended since": {func(s *shop) {
			s.tested(func(v *meta.Verdict) { v.When = meta.At(now.Add(-time.Hour)) }, meta.Failed).tested(nil, meta.Passed)
		}, "", "pass on daint%gh200"},
		"only JUnit": {func(s *shop) {
			s.attach(meta.TypeReframe, nil, registry.BytesLayer("report.xml", ocispec.MediaTypeImageLayer, []byte("<testsuites/>")))
		}, RuleTests, "JUnit report is attached, which counts as untested"},
		"JUnit beside a verdict": {func(s *shop) {
			s.tested(nil, meta.Passed)
			s.attach(meta.TypeReframe, map[string]string{ocispec.AnnotationCreated: "2027-01-01T00:00:00Z"}, registry.BytesLayer("report.xml", ocispec.MediaTypeImageLayer, []byte("<testsuites/>")))
		}, "", "pass on daint%gh200"},
		"newest is unreadable": {func(s *shop) {
			s.tested(nil, meta.Passed)
			s.attach(meta.TypeReframe, map[string]string{meta.AnnotationSystem: "daint", meta.AnnotationWhen: meta.FormatTime(now.Add(time.Hour))}, s.directory(meta.ReframeTitle, "verdict.json", "{"))
		}, RuleTests, "cannot be used"},
		"waived by the results alone": {func(s *shop) { s.tested(fail("flop"), meta.Passed) }, RuleTests, "only those of a site file"},
		"waived by the site":          {func(s *shop) { s.tested(fail("flop"), meta.Passed); s.request.Rules.Waivers = []Waiver{waiver} }, "", "waived on daint%gh200"},
		"waived for others": {func(s *shop) {
			w := waiver
			w.Image = label.Label{Name: "other"}
			s.tested(fail("flop"), meta.Passed)
			s.request.Rules.Waivers = []Waiver{w}
		}, RuleTests, "1 failed (flop)"},
		"the waiver is over": {func(s *shop) {
			s.tested(fail("flop"), meta.Passed)
			s.request.Rules.Waivers = []Waiver{waiver}
			s.request.Now = func() time.Time { return now.AddDate(0, 0, 1) }
		}, RuleTests, "1 failed (flop); the waiver of flop* ended on 2026-11-21"},
		"too few tests": {func(s *shop) {
			s.tested(nil, meta.Passed, meta.Skipped)
			s.request.Rules.Require = []Requirement{{System: "daint", MinTests: 2}}
		}, RuleTests, "1 tests ran on daint%gh200, and 2 must"},
		"asked elsewhere": {func(s *shop) {
			s.tested(nil, meta.Passed)
			s.request.Rules.Require = []Requirement{{System: "eiger", MinTests: 2}, {UArch: "zen2", MinTests: 2}}
		}, "", "pass"},
		"too old": {func(s *shop) {
			s.tested(func(v *meta.Verdict) { v.When = meta.At(now.AddDate(0, 0, -40)) }, meta.Passed)
			s.request.Rules.Require = []Requirement{{MaxAge: 30 * 24 * time.Hour}}
		}, RuleTests, "are 40 days old, more than 30"},
		"suite is missing": {func(s *shop) {
			s.tested(nil, meta.Passed)
			s.request.Rules.Require = []Requirement{{Suites: []string{"recipe", "site"}}}
		}, RuleTests, "no test results of suite site on daint%gh200"},
		"each suite has its newest": {func(s *shop) {
			s.tested(nil, meta.Passed).tested(func(v *meta.Verdict) { v.Suite, v.When = "site", meta.At(now.Add(-time.Hour)) }, meta.Passed)
			s.request.Rules.Require = []Requirement{{Suites: []string{"recipe", "site"}}}
		}, "", "pass of suite site"},
		"no metadata": {func(s *shop) {
			s.tested(nil, meta.Passed)
			attached, err := s.request.Source.Referrers(t.Context(), s.request.Image, meta.TypeMeta)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.request.Source.Delete(t.Context(), attached[0]); err != nil {
				t.Fatal(err)
			}
		}, RuleMetadata, "it has 0 uenv/meta attached"},
		"two metadata": {func(s *shop) {
			s.tested(nil, meta.Passed).attach(meta.TypeMeta, nil, s.directory(meta.MetaTitle, "env.json", `{"mount": "/x"}`))
		}, RuleMetadata, "it has 2 uenv/meta attached"},
		"another namespace": {func(s *shop) { s.tested(nil, meta.Passed); s.request.Rules.From = []string{"release"} }, RuleSource, `namespace "build", not from release`},
		"another uarch": {func(s *shop) {
			s.tested(nil, meta.Passed)
			s.request.From.UArch = "zen2"
		}, RuleUArch, "built for zen2, not for gh200"},
		"deprecated": {func(s *shop) {
			s.tested(nil, meta.Passed).deprecated(meta.Active, now)
		}, RuleDeprecation, "it is deprecated: because"},
		"deprecated no more": {func(s *shop) {
			s.tested(nil, meta.Passed).deprecated(meta.Active, now).deprecated(meta.Withdrawn, now.Add(time.Second))
		}, "", "pass"},
		"unreadable deprecation": {func(s *shop) {
			s.tested(nil, meta.Passed).attach(meta.TypeDeprecation, nil, registry.BytesLayer(meta.DeprecationTitle, meta.MediaTypeJSON, []byte("{")))
		}, RuleDeprecation, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s := image(t, layout(t), "x")
			c.change(s)
			by, d := s.refusedBy()
			rule := c.by
			if rule == "" {
				rule = RuleTests
			}
			if c.by == RuleMetadata && !strings.Contains(d.hints[c.by], "uenv-ci push") {
				t.Errorf("hint %q", d.hints[c.by])
			}
			if by != c.by || !strings.Contains(reason(d, rule), c.says) {
				t.Errorf("refused by %q: %s", by, reason(d, rule))
			}
		})
	}
}

func (s *shop) deprecated(state string, when time.Time) *shop {
	s.t.Helper()
	d := meta.Deprecation{State: state, When: meta.At(when), Who: "staff", Image: s.request.Image.Digest, Reason: "because", Replacement: "hello/2.0"}
	text, err := d.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	s.attach(meta.TypeDeprecation, d.Annotations(), registry.BytesLayer(meta.DeprecationTitle, meta.MediaTypeJSON, text))
	return s
}

func TestNotAnImage(t *testing.T) {
	for name, a := range map[string]registry.Artifact{
		"title":      {Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer("other.squashfs", ocispec.MediaTypeImageLayer, []byte("hsqs"))}},
		"type":       {Type: "application/x-tar", Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, ocispec.MediaTypeImageLayer, []byte("hsqs"))}},
		"two layers": {Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, ocispec.MediaTypeImageLayer, []byte("a")), registry.BytesLayer("b", ocispec.MediaTypeImageLayer, []byte("b"))}},
	} {
		t.Run(name, func(t *testing.T) {
			s := image(t, layout(t), "x")
			s.request.Image = s.push(a)
			s.attach(meta.TypeMeta, nil, s.directory(meta.MetaTitle, "env.json", `{"mount": "/user-environment"}`))
			s.tested(nil, meta.Passed)
			if by, d := s.refusedBy(); by != RuleImage {
				t.Errorf("refused by %q: %s", by, reason(d, RuleImage))
			}
			s.request.Overrides = map[string]string{RuleImage: "I want it"}
			if _, err := Decide(t.Context(), s.request); fault.KindOf(err) != fault.Usage {
				t.Errorf("overridden: %v", err)
			}
		})
	}
}

func TestRefusalLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := image(t, open(t, "oci:"+dir), "x")
	_, err := Apply(t.Context(), s.request)
	want := "promote build::hello/1.0:42@daint%gh200: no test results on daint%gh200"
	if fault.KindOf(err) != fault.Refused || err.Error() != want || !strings.Contains(fault.HintOf(err), "uenv-ci test build::hello/1.0:42@daint%gh200") {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
	if _, err := s.request.Target.Resolve(t.Context(), "v1"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the destination has the tag: %v", err)
	}
	if repos, err := s.reg.Repositories(t.Context(), "deploy"); err != nil || len(repos) != 0 {
		t.Errorf("the destination has %v, %v", repos, err)
	}
}

func TestOverride(t *testing.T) {
	s := image(t, layout(t), "x").tested(nil, meta.Failed)
	s.request.Overrides = map[string]string{RuleTests: "known compiler bug, users wait", RuleTag: "not needed"}
	r, err := Apply(t.Context(), s.request)
	if err != nil {
		t.Fatal(err)
	}
	records, _, err := meta.Promotions(t.Context(), s.request.Target, s.request.Image)
	if err != nil || len(records) != 1 {
		t.Fatalf("%v, %v", records, err)
	}
	for _, rule := range records[0].Rules {
		want := meta.RulePassed
		if rule.Rule == RuleTests {
			want = meta.RuleOverridden
		}
		if rule.Outcome != want || (rule.Override != "") != (rule.Rule == RuleTests) {
			t.Errorf("recorded %+v", rule)
		}
	}
	if r.Evidence[0].State != meta.Fail {
		t.Errorf("got %+v", r.Evidence)
	}
}

func TestReleasedNamesStay(t *testing.T) {
	reg := layout(t)
	old := image(t, reg, "old").tested(nil, meta.Passed)
	if _, err := Apply(t.Context(), old.request); err != nil {
		t.Fatal(err)
	}
	s := image(t, reg, "new").tested(nil, meta.Passed)
	if by, d := s.refusedBy(); by != RuleTag || !strings.Contains(reason(d, RuleTag), old.request.Image.Digest.String()) {
		t.Errorf("refused by %q: %s", by, reason(d, RuleTag))
	}
	s.request.Overrides = map[string]string{RuleTag: "v1 was broken"}
	if _, err := Apply(t.Context(), s.request); err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]digest.Digest{
		"v1": s.request.Image.Digest, registry.KeepTag(old.request.Image.Digest): old.request.Image.Digest, registry.KeepTag(s.request.Image.Digest): s.request.Image.Digest,
	} {
		if d, err := s.request.Target.Resolve(t.Context(), tag); err != nil || d.Digest != want {
			t.Errorf("%s is %s, %v", tag, d.Digest, err)
		}
	}
}

// Somebody else releases another image under the name while this one is copied.
func TestNameTakenMeanwhile(t *testing.T) {
	for _, kind := range registrytest.InProcess {
		t.Run(string(kind), func(t *testing.T) {
			var other atomic.Pointer[shop]
			takes := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/deploy/") {
						if o := other.Swap(nil); o != nil {
							if _, err := Apply(t.Context(), o.request); err != nil {
								t.Error(err)
							}
						}
					}
					next.ServeHTTP(w, r)
				})
			}
			address := registrytest.Start(t, kind, takes)
			s := image(t, open(t, address), "x").tested(nil, meta.Passed)
			faster := image(t, open(t, address), "faster").tested(nil, meta.Passed)
			other.Store(faster)
			if _, err := Apply(t.Context(), s.request); fault.KindOf(err) != fault.Refused {
				t.Errorf("got %v", err)
			}
			if d, err := s.request.Target.Resolve(t.Context(), "v1"); err != nil || d.Digest != faster.request.Image.Digest {
				t.Errorf("v1 is %s, %v", d.Digest, err)
			}
		})
	}
}

// What is attached under a released name counts for the next one too.
func TestTheReleasedNamesEvidenceCounts(t *testing.T) {
	for name, c := range map[string]struct {
		attach func(s *shop)
		rule   string
	}{
		"deprecated since": {func(s *shop) { s.deprecated(meta.Active, now) }, RuleDeprecation},
		"failed since":     {func(s *shop) { s.tested(func(v *meta.Verdict) { v.When = meta.At(now.Add(time.Hour)) }, meta.Failed) }, RuleTests},
		"failed before":    {func(s *shop) { s.tested(func(v *meta.Verdict) { v.When = meta.At(now.Add(-time.Hour)) }, meta.Failed) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := image(t, layout(t), "x").tested(nil, meta.Passed)
			if _, err := Apply(t.Context(), s.request); err != nil {
				t.Fatal(err)
			}
			source := s.request.Source
			s.request.Source = s.request.Target
			c.attach(s)
			s.request.Source, s.request.To.Tag = source, "v2"
			if by, d := s.refusedBy(); by != c.rule {
				t.Errorf("refused by %q: %+v", by, d.Rules)
			}
		})
	}
}

// A run that stopped at any point is completed by the next one.
func TestPromotionIsResumed(t *testing.T) {
	for name, done := range map[string]func(s *shop, d Decision) error{
		"copied": func(s *shop, d Decision) error {
			_, err := registry.Copy(t.Context(), s.request.Source, s.request.Image, s.request.Target, registry.CopyOptions{})
			return err
		},
		"recorded": func(s *shop, d Decision) error {
			attach, err := s.request.artifacts(s.request.record(d))
			if err != nil {
				return err
			}
			_, err = registry.Copy(t.Context(), s.request.Source, s.request.Image, s.request.Target, registry.CopyOptions{Attach: attach})
			return err
		},
		"kept": func(s *shop, d Decision) error {
			attach, err := s.request.artifacts(s.request.record(d))
			if err != nil {
				return err
			}
			_, err = registry.Copy(t.Context(), s.request.Source, s.request.Image, s.request.Target, registry.CopyOptions{Attach: attach, Tag: registry.KeepTag(s.request.Image.Digest)})
			return err
		},
		"tagged without a record": func(s *shop, d Decision) error {
			_, err := registry.Copy(t.Context(), s.request.Source, s.request.Image, s.request.Target, registry.CopyOptions{Tag: "v1"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := image(t, layout(t), "x").tested(nil, meta.Passed)
			d, err := Decide(t.Context(), s.request)
			if err != nil {
				t.Fatal(err)
			}
			if err := done(s, d); err != nil {
				t.Fatal(err)
			}
			r, err := Apply(t.Context(), s.request)
			if err != nil {
				t.Fatal(err)
			}
			s.promoted(r)
		})
	}
}

// A run that took a name from another image and stopped before the tag is completed
// with its own record. What is promoted again, after the other was, has a new one.
func TestRetaggingIsResumed(t *testing.T) {
	reg, hours := layout(t), 0
	later := func() time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	old, s := image(t, reg, "old").tested(nil, meta.Passed), image(t, reg, "new").tested(nil, meta.Passed)
	for _, each := range []*shop{old, s} {
		each.request.Overrides, each.request.Now = map[string]string{RuleTag: "the other was broken"}, later
	}
	records := func(want int) {
		t.Helper()
		if list, _, err := meta.Promotions(t.Context(), s.request.Target, s.request.Image); err != nil || len(list) != want {
			t.Errorf("after %d h there are %d records, not %d: %v", hours, len(list), want, err)
		}
	}
	promote := func(s *shop) Result {
		t.Helper()
		hours++
		r, err := Apply(t.Context(), s.request)
		if err != nil {
			t.Fatal(err)
		}
		if now, err := s.request.Target.Resolve(t.Context(), "v1"); err != nil || now.Digest != s.request.Image.Digest {
			t.Errorf("v1 is %s, %v", now.Digest, err)
		}
		return r
	}
	promote(old)
	d, err := Decide(t.Context(), s.request)
	if err != nil {
		t.Fatal(err)
	}
	hours++
	stopped := s.request.record(d)
	attach, err := s.request.artifacts(stopped)
	if err == nil {
		_, err = registry.Copy(t.Context(), s.request.Source, s.request.Image, s.request.Target, registry.CopyOptions{Attach: attach, Tag: registry.KeepTag(s.request.Image.Digest)})
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := promote(s); !r.Record.When.Equal(stopped.When.Time) {
		t.Errorf("the record is of %v, not of the run that stopped", r.Record.When)
	}
	records(1)
	promote(old)
	promote(s)
	records(2)

	// Stopped again: by somebody else, or for another reason, it is another promotion.
	for _, change := range []func(){
		func() { s.request.Who = "somebody else" },
		func() { s.request.Overrides = map[string]string{RuleTag: "another reason"} },
	} {
		if err := s.request.Target.Tag(t.Context(), old.request.Image, "v1"); err != nil {
			t.Fatal(err)
		}
		change()
		promote(s)
	}
	records(4)
}

// All of a promotion, from the tag to be found to the tag that was set, with what the
// rules ask: the image has three referrers, of which the rules read two, and gets the
// record. The bounds of the copy alone are tested where it is made.
func TestRequestsOfAPromotion(t *testing.T) {
	for kind, most := range map[registrytest.Kind]int{registrytest.Referrers: 30, registrytest.Docker: 29} {
		t.Run(string(kind), func(t *testing.T) {
			var seen registrytest.Counter
			address := registrytest.Start(t, kind, seen.Middleware())
			s := image(t, open(t, address), "x").tested(nil, meta.Passed)
			s.attach(meta.TypeProvenance, nil, registry.BytesLayer("document.json", meta.MediaTypeJSON, []byte("{}")))
			again := open(t, address)
			s.request.Source, s.request.Target = repository(t, again, s.request.From), repository(t, again, s.request.To)
			seen.Reset()
			if _, err := s.request.Source.Resolve(t.Context(), s.request.From.Tag); err != nil {
				t.Fatal(err)
			}
			if _, err := Apply(t.Context(), s.request); err != nil {
				t.Fatal(err)
			}
			if seen.Count("") > most {
				t.Errorf("%d requests, more than %d:\n%s", seen.Count(""), most, &seen)
			}
		})
	}
}

// Whichever request to the destination fails: a tag is there only with all that
// belongs to the image, and the next run completes the rest.
func TestPromotionFailsAnywhere(t *testing.T) {
	const more = 50 // requests than a promotion takes
	for _, kind := range registrytest.InProcess {
		failures := 0
		for n := range more {
			failure := registrytest.Rule{Path: "/deploy/", Skip: n, Times: 1, Fault: registrytest.Status(403)}
			address := registrytest.Start(t, kind, registrytest.Faults(failure))
			s := image(t, open(t, address), "x").tested(nil, meta.Passed)
			_, err := Apply(t.Context(), s.request)
			if err == nil { // there is no such request, or it was not needed
				continue
			}
			if failures++; n == more-1 {
				t.Errorf("%s: there are requests after %d: %v", kind, n, err)
			}
			again := open(t, address)
			s.request.Source, s.request.Target = repository(t, again, s.request.From), repository(t, again, s.request.To)
			for _, tag := range []string{"v1", registry.KeepTag(s.request.Image.Digest)} {
				if _, err := s.request.Target.Resolve(t.Context(), tag); fault.KindOf(err) == fault.NotFound {
					continue
				}
				if list, err := s.request.Target.Referrers(t.Context(), s.request.Image, ""); err != nil || len(list) != 3 {
					t.Errorf("%s, failure of request %d: tag %s with %d referrers, %v", kind, n, tag, len(list), err)
				}
			}
			r, err := Apply(t.Context(), s.request)
			if err != nil {
				t.Fatalf("%s, after the failure of request %d: %v", kind, n, err)
			}
			s.promoted(r)
		}
		if failures < 12 {
			t.Errorf("%s: of all requests %d were needed", kind, failures)
		}
	}
}

func TestBadRequests(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Request)
		says   string
	}{
		"no tag":            {func(r *Request) { r.To.Tag = "" }, "has no tag"},
		"no namespace":      {func(r *Request) { r.To.Namespace = "" }, "has no namespace"},
		"wrong repository":  {func(r *Request) { r.To.Version = "2.0" }, "does not belong"},
		"nobody":            {func(r *Request) { r.Who = " " }, "not known who promotes"},
		"onto itself":       {func(r *Request) { r.Target, r.To = r.Source, r.From }, "are the same"},
		"unknown rule":      {func(r *Request) { r.Overrides = map[string]string{"luck": "x"} }, `no rule "luck"`},
		"override for free": {func(r *Request) { r.Overrides = map[string]string{RuleTests: ""} }, "needs a reason"},
	} {
		t.Run(name, func(t *testing.T) {
			s := image(t, layout(t), "x").tested(nil, meta.Passed)
			c.change(&s.request)
			if _, err := Apply(t.Context(), s.request); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFailingRegistryIsNoRefusal(t *testing.T) {
	s := image(t, layout(t), "x").tested(nil, meta.Passed)
	s.request.Source = repository(t, open(t, "127.0.0.1:1"), s.request.From)
	if _, err := Apply(t.Context(), s.request); err == nil || fault.KindOf(err) == fault.Refused {
		t.Errorf("got %v", err)
	}
}

func TestFromSite(t *testing.T) {
	if r, err := FromSite(nil); err != nil || len(r.Require) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	s := &site.Site{File: "uenv-ci.yaml", Digest: digest.FromString("x").String(), Rules: &site.Rules{
		From: []string{"build", "service"}, Require: []site.Requirement{{System: "daint", MinTests: 3, Suites: []string{"s"}, MaxAgeDays: 2}},
		Waivers: []site.Waiver{{Test: "a*", Uenv: "hello@daint", Reason: "r", Until: "2027-01-31"}},
	}}
	r, err := FromSite(s)
	if err != nil || r.Site.String() != s.Digest || r.Require[0].MaxAge != 48*time.Hour || len(r.From) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := r.For(parse(t, "deploy::hello/1:v1@daint%gh200")); len(got) != 1 || got[0].Until.String() != "2027-01-31" {
		t.Errorf("got %+v", got)
	}
	if got := r.For(parse(t, "deploy::hello/1:v1@eiger%zen2")); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
	s.Rules.Waivers[0].Until = "soon"
	if _, err := FromSite(s); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
	if len(Overridable()) != 6 || slices.Contains(Overridable(), RuleImage) {
		t.Errorf("overridable are %v", Overridable())
	}
}

// Results accumulate: promoted again, an image gets what its source has got since,
// and no second record.
func TestPromotedAgainItCatchesUp(t *testing.T) {
	for _, kind := range registrytest.InProcess {
		t.Run(string(kind), func(t *testing.T) {
			s := image(t, open(t, registrytest.Start(t, kind)), "x").tested(nil, meta.Passed)
			if _, err := Apply(t.Context(), s.request); err != nil {
				t.Fatal(err)
			}
			later := s.attach("text/x-note", map[string]string{"a": "b"}, registry.BytesLayer("note", "", []byte("later")))
			for i := range 2 {
				again, err := Apply(t.Context(), s.request)
				if err != nil || !again.Already || (again.Copy.Manifests > 0) != (i == 0) {
					t.Fatalf("%d: %+v, %v", i, again, err)
				}
			}
			refs, err := s.request.Target.Referrers(t.Context(), s.request.Image, "")
			count := map[string]int{}
			for _, d := range refs {
				count[d.ArtifactType]++
			}
			if err != nil || count["text/x-note"] != 1 || count[meta.TypePromotion] != 1 || len(refs) != 4 {
				t.Errorf("%v, %v; %s", count, err, later.Digest)
			}
		})
	}
}
