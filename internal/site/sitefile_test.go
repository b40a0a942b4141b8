package site_test

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/site"
)

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const siteText = `registry: oci:registry
repo: $STORE/images
clusters: clusters
matrix: /etc/matrix.yaml
namespaces: {build: ci}
build: {root: /scratch, jobs: 8, memory_per_job: 1024, mirrors: mirrors.yaml}
tests: {runner: reframe, suite: suite, reframe: reframe, timeout: 600}
uenvs:
  vasp:
    access: restricted
    token: secrets/vasp
    hook_secrets:
      - {hook: pre-install, env: CSCS_REGISTRY_PASSWORD, file: secrets/source}
    network: [pre-install]
promotion:
  from: [ci]
  require: [{system: daint, min_tests: 3, max_age_days: 30}]
waivers:
  - {test: "cuda_*", uenv: "pytorch", reason: known, until: "2027-01-31"}
`

func env(values ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(values); i += 2 {
			if values[i] == name {
				return values[i+1]
			}
		}
		return ""
	}
}

func TestNamedSiteFile(t *testing.T) {
	dir := write(t, map[string]string{"site.yaml": siteText, "clusters/daint/packages.yaml": "packages: {}"})
	s, err := site.Find(filepath.Join(dir, "site.yaml"), env("STORE", "/store"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for key, v := range map[string]site.Value{
		"registry": s.Registry, "repo": s.Repo, "clusters": s.Clusters, "matrix": s.Matrix, "listing": s.Listing, "root": s.Build.Root,
		"mirrors": s.Build.Mirrors, "spack": s.Build.Spack, "suite": s.Tests.Suite, "reframe": s.Tests.Reframe, "token": s.Uenv("vasp").Token,
		"secret": s.Uenv("vasp").HookSecrets[0].File,
	} {
		text, err := v.Get()
		if err != nil || v.Given() != (text != "") {
			t.Errorf("%s: %q %v", key, text, err)
		}
		got[key] = text
	}
	want := map[string]string{
		"registry": "oci:" + dir + "/registry", "repo": "/store/images", "clusters": dir + "/clusters", "matrix": "/etc/matrix.yaml", "listing": "", "root": "/scratch",
		"mirrors": dir + "/mirrors.yaml", "spack": "", "suite": dir + "/suite", "reframe": "reframe", "token": dir + "/secrets/vasp", "secret": dir + "/secrets/source",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if !s.Explicit || s.Namespaces != (site.Namespaces{Build: "ci"}) || s.Build.Jobs != 8 || s.Build.MemoryPerJob != 1024 ||
		s.Tests.Runner != "reframe" || s.Tests.TimeoutSeconds != 600 || len(s.Digest) != 71 || len(s.Warnings) > 0 || len(s.Unset) > 0 {
		t.Errorf("%+v", s)
	}
	vasp := s.Uenv("vasp")
	if !vasp.Restricted || !slices.Equal(vasp.Network, []string{"pre-install"}) || len(vasp.HookSecrets) != 1 ||
		vasp.HookSecrets[0].Hook != "pre-install" || vasp.HookSecrets[0].Env != "CSCS_REGISTRY_PASSWORD" || !reflect.DeepEqual(s.Uenv("x"), site.Uenv{Name: "x"}) {
		t.Errorf("%+v", s.Uenvs)
	}
	wantRules := &site.Rules{
		From: []string{"ci"}, Require: []site.Requirement{{System: "daint", MinTests: 3, MaxAgeDays: 30}},
		Waivers: []site.Waiver{{Test: "cuda_*", Uenv: "pytorch", Reason: "known", Until: "2027-01-31"}},
	}
	if !reflect.DeepEqual(s.Rules, wantRules) {
		t.Errorf("%+v", s.Rules)
	}
	if got, err := s.ClusterDirFor("daint", 2); err != nil || got != dir+"/clusters/daint" {
		t.Errorf("%s %v", got, err)
	}
	for system, kind := range map[string]fault.Kind{"diant": fault.NotFound, "../x": fault.Usage, "a/b": fault.Usage, "": fault.Usage, ".": fault.Usage} {
		if _, err := s.ClusterDirFor(system, 2); fault.KindOf(err) != kind {
			t.Errorf("%q: %v", system, err)
		}
	}
	if _, err := (&site.Site{}).ClusterDirFor("daint", 2); fault.KindOf(err) != fault.Usage || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// A file found in the checkout of a change must neither rule nor reveal secrets.
func TestFoundSiteFileIsNotTrusted(t *testing.T) {
	dir := write(t, map[string]string{"uenv-ci.yaml": siteText, "a/b/x": "", "home/.config/uenv-ci/site.yaml": "registry: home.example.org\n", "xdg/uenv-ci/site.yaml": "registry: xdg.example.org\n"})
	t.Chdir(filepath.Join(dir, "a/b"))
	s, err := site.Find("", env("STORE", "/store", "HOME", dir+"/home"))
	if err != nil {
		t.Fatal(err)
	}
	vasp := s.Uenv("vasp")
	if !s.Here || s.Tests.Suite.Given() || s.Tests.Reframe.Given() || s.Build.Spack.Given() || s.Build.Root.Given() {
		t.Errorf("it names programs: %+v", s)
	}
	if s.Explicit || s.Rules != nil || vasp.Token.Given() || vasp.HookSecrets != nil || !vasp.Restricted || s.Build.Jobs != 8 {
		t.Errorf("%+v", s)
	}
	if len(s.Warnings) != 2 || s.Warnings[0].Message != "promotion rules, waivers, tokens and hook secrets are taken only from a site file that is named" {
		t.Errorf("%v", s.Warnings)
	}
	if err := os.Remove(filepath.Join(dir, "uenv-ci.yaml")); err != nil {
		t.Fatal(err)
	}
	for want, getenv := range map[string]func(string) string{
		"home.example.org": env("HOME", dir+"/home"), "xdg.example.org": env("HOME", dir+"/home", "XDG_CONFIG_HOME", dir+"/xdg"), "": env("HOME", dir+"/nowhere"),
	} {
		s, err := site.Find("", getenv)
		if err != nil || s.Registry.Known() != want || s.Here {
			t.Errorf("%s: %+v %v", want, s, err)
		}
	}
}

func TestSiteFileProblems(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.yaml")
	if _, err := site.Find(path, env()); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"":                         "",
		"registy: x\n":             "s.yaml:1:1: unknown key 'registy' (did you mean 'registry'?)",
		"build: {jobs: 0}\n":       "s.yaml:1:15: 'build.jobs' must be 1 or more, not 0",
		"- a\n":                    "s.yaml:1:1: the document must be a mapping, not a list",
		"waivers: [{test: a}]\n":   "s.yaml:1:11: the key 'reason' is missing in 'waivers[0]'\ns.yaml:1:11: the key 'until' is missing in 'waivers[0]'",
		"tests: {runner: refram}":  "s.yaml:1:17: 'tests.runner' must be 'reframe' or 'command', not 'refram' (did you mean 'reframe'?)",
		"uenvs: {a: {access: no}}": "s.yaml:1:21: 'uenvs.a.access' must be 'open' or 'restricted', not the boolean false",
		"waivers: [{test: a, reason: b, until: '2027-02-30'}]\n": "s.yaml:1:39: '2027-02-30' is no day of the calendar",
		"waivers: [{test: a, reason: b, until: 2027-02-01}]\n":   "s.yaml:1:39: 'waivers[0].until' must be text, not a date (write '2027-02-01' with the quotes)",
	} {
		writeFile(t, path, text)
		_, err := site.Find(path, env())
		got := ""
		if err != nil {
			got = strings.ReplaceAll(err.Error(), dir+"/", "")
		}
		if got != want {
			t.Errorf("%q: got\n%s\nwant\n%s", text, got, want)
		}
	}
}

// A variable that is not set stops who needs the value, and nobody else.
func TestUnsetVariables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.yaml")
	writeFile(t, path, `registry: $HOST/$UENV_CI_NONE
repo: $UENV_CI_NONE/x
listing: https://$HOST/${UENV_CI_NONE}
clusters: $UENV_CI_NONE
build: {spack: $STORE/spack}
tests: {reframe: $UENV_CI_NONE}
uenvs: {a: {token: $UENV_CI_NONE}}
`)
	s, err := site.Find(path, env("STORE", "/store/$x", "HOST", "example.org"))
	if err != nil {
		t.Fatal(err)
	}
	for place, v := range map[string]site.Value{
		"1:11": s.Registry, "2:7": s.Repo, "3:10": s.Listing, "4:11": s.Clusters, "6:18": s.Tests.Reframe, "7:20": s.Uenv("a").Token,
	} {
		want := path + ":" + place + ": the variable " + map[bool]string{true: "${UENV_CI_NONE}", false: "$UENV_CI_NONE"}[place == "3:10"] + " is not set"
		text, err := v.Get()
		if err == nil || err.Error() != want || fault.KindOf(err) != fault.Invalid || text != "" || v.Known() != "" || !v.Given() {
			t.Errorf("%q %v, want %s", text, err, want)
		}
		if text, err := v.Or("instead"); text != "instead" || err != nil {
			t.Errorf("%q %v", text, err)
		}
	}
	if _, err := s.ClusterDirFor("daint", 2); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v", err)
	}
	if len(s.Unset) != 6 || s.Unset.Err() != nil {
		t.Errorf("%v", s.Unset)
	}
	// What a variable stands for is taken as it is.
	if text, err := s.Build.Spack.Get(); text != "/store/$x/spack" || err != nil {
		t.Errorf("%q %v", text, err)
	}
}
