package site_test

import (
	"os"
	"path/filepath"
	"reflect"
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
	if !s.Explicit || s.Registry != "oci:"+dir+"/registry" || s.Repo != "/store/images" || s.Clusters != dir+"/clusters" || s.Matrix != "/etc/matrix.yaml" ||
		s.Namespaces != (site.Namespaces{Build: "ci"}) || s.Build != (site.BuildSettings{Root: "/scratch", Jobs: 8, MemoryPerJob: 1024, Mirrors: dir + "/mirrors.yaml"}) ||
		s.Tests != (site.Tests{Runner: "reframe", Suite: dir + "/suite", Reframe: "reframe", TimeoutSeconds: 600}) || len(s.Digest) != 71 || len(s.Warnings) > 0 {
		t.Errorf("%+v", s)
	}
	vasp := site.Uenv{
		Name: "vasp", Restricted: true, Token: dir + "/secrets/vasp", Network: []string{"pre-install"},
		HookSecrets: []site.HookSecret{{Hook: "pre-install", Env: "CSCS_REGISTRY_PASSWORD", File: dir + "/secrets/source"}},
	}
	if !reflect.DeepEqual(s.Uenv("vasp"), vasp) || !reflect.DeepEqual(s.Uenv("x"), site.Uenv{Name: "x"}) {
		t.Errorf("%+v", s.Uenvs)
	}
	want := &site.Rules{
		From: []string{"ci"}, Require: []site.Requirement{{System: "daint", MinTests: 3, MaxAgeDays: 30}},
		Waivers: []site.Waiver{{Test: "cuda_*", Uenv: "pytorch", Reason: "known", Until: "2027-01-31"}},
	}
	if !reflect.DeepEqual(s.Rules, want) {
		t.Errorf("%+v", s.Rules)
	}
	if got, err := s.ClusterDir("daint"); err != nil || got != dir+"/clusters/daint" {
		t.Errorf("%s %v", got, err)
	}
	for system, kind := range map[string]fault.Kind{"diant": fault.NotFound, "../x": fault.Usage, "a/b": fault.Usage, "": fault.Usage, ".": fault.Usage} {
		if _, err := s.ClusterDir(system); fault.KindOf(err) != kind {
			t.Errorf("%q: %v", system, err)
		}
	}
	if _, err := (&site.Site{}).ClusterDir("daint"); fault.KindOf(err) != fault.Usage || fault.HintOf(err) == "" {
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
	if !s.Here || s.Tests.Suite != "" || s.Tests.Reframe != "" || s.Build.Spack != "" || s.Build.Root != "" {
		t.Errorf("it names programs: %+v", s)
	}
	if s.Explicit || s.Rules != nil || vasp.Token != "" || vasp.HookSecrets != nil || !vasp.Restricted || s.Build.Jobs != 8 {
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
		if err != nil || s.Registry != want || s.Here {
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
		"repo: $UENV_CI_NONE/x\n":  "s.yaml:1:7: the variable $UENV_CI_NONE is not set",
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
