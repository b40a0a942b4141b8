package site_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/testdirs"
)

const matrixText = `clusters:
  eiger:
    targets:
      - uarch: zen2
        partition: normal
        variables: {SLURM_CONSTRAINT: mc, F7T_URL: "https://x"}
    runner: f7t
  daint:
    targets:
      - {uarch: gh200, partition: normal}
      - {uarch: a100, partition: gpu}
    runner: {slurm-tag: s, baremetal-tag: null}
    no_bwrap: true
uenvs:
  app:
    "25.1":
      recipes: {zen2: "25.1/mc", gh200: "common/gh200"}
      deploy: {eiger: [zen2], daint: [gh200]}
    "25.2":
      recipes: {zen2: "25.1/mc"}
      mount: /opt/app
`

func matrix(t *testing.T, text string) (*site.Matrix, string, error) {
	dir := write(t, map[string]string{"config.yaml": text, "recipes/app/25.1/mc/config.yaml": "", "recipes/common/gh200/config.yaml": ""})
	m, err := site.LoadMatrix(filepath.Join(dir, "config.yaml"))
	return m, dir, err
}

func TestLoadMatrix(t *testing.T) {
	m, dir, err := matrix(t, matrixText)
	if err != nil || len(m.Problems) > 0 {
		t.Fatal(err, m.Problems)
	}
	eiger, daint := m.Cluster("eiger"), m.Cluster("daint")
	if eiger.Runner.Kind != "f7t" || eiger.NoSandbox || eiger.Target("zen2").Variables[1] != (site.Variable{Name: "F7T_URL", Value: "https://x"}) {
		t.Errorf("%+v", eiger)
	}
	if daint.Runner != (site.Runner{SlurmTag: "s"}) || !daint.NoSandbox || daint.Target("a100").Partition != "gpu" || daint.Target("zen2") != nil {
		t.Errorf("%+v", daint)
	}
	v := versionOf(m, "app", "25.1")
	if v.Mount != pathcheck.DefaultMount || v.Recipe("zen2").Dir != filepath.Join(dir, "recipes/app/25.1/mc") || v.Recipe("gh200").Dir != filepath.Join(dir, "recipes/common/gh200") ||
		!v.Deployed("daint", "gh200") || v.Deployed("daint", "a100") {
		t.Errorf("%+v", v)
	}
	if w := versionOf(m, "app", "25.2"); w.Mount != "/opt/app" || len(w.Deploy) != 0 {
		t.Errorf("%+v", w)
	}
	if versionOf(m, "app", "1") != nil || m.Cluster("x") != nil {
		t.Error("found what is not there")
	}
}

// A broken row is reported, and only where it is.
func TestBrokenRows(t *testing.T) {
	for _, c := range []struct{ name, from, to, version, want string }{
		{"no recipe for a target", "daint: [gh200]", "daint: [gh200, a100]", "25.1", "config.yaml:18:46: app/25.1 is deployed to a100 on 'daint' without a recipe for a100 (add it below 'recipes')"},
		{"recipe missing", `zen2: "25.1/mc", gh200`, `zen2: "25.1/mcc", gh200`, "25.1", "config.yaml:17:23: the recipe '25.1/mcc' of app/25.1 for zen2 does not exist (it is looked for in recipes/app and recipes)"},
		{"recipe outside", `zen2: "25.1/mc", gh200`, `zen2: "../x", gh200`, "25.1", "config.yaml:17:23: the recipe path '../x' leads out of the repository (paths are relative to the directory 'recipes')"},
		{"cluster unknown", "eiger: [zen2]", "eigre: [zen2]", "25.1", "config.yaml:18:16: app/25.1 is deployed to 'eigre', which is no cluster of this file (did you mean 'eiger'?)"},
		{"target unknown", "eiger: [zen2]", "eiger: [gh200]", "25.1", "config.yaml:18:24: app/25.1 is deployed to gh200 on 'eiger', which the cluster does not have"},
		{"uarch unknown", "gh200: \"common", "gh201: \"common", "25.1", "config.yaml:17:34: warning: no cluster has the target 'gh201' (did you mean 'gh200'?)\n" +
			"config.yaml:18:39: app/25.1 is deployed to gh200 on 'daint' without a recipe for gh200 (add it below 'recipes')"},
		{"number as version", `"25.2":`, `25.20:`, "25.20", "config.yaml:19:5: the key 25.20 is the number 25.2, not text (write '25.20' with the quotes)"},
		{"unknown key", "mount: /opt/app", "mont: /opt/app", "25.2", "config.yaml:21:7: unknown key 'mont' in 'uenvs.app.25.2' (did you mean 'mount'?)"},
		{"relative mount", "/opt/app", "opt", "25.2", "config.yaml:21:14: 'uenvs.app.25.2.mount' must be an absolute path, not 'opt'"},
		{"version in capitals", `"25.2":`, `V25:`, "V25", "config.yaml:19:5: app/V25 cannot be published (registries allow lower-case letters and digits, separated by single '.', '_', '-' or '/')"},
		{"mount of the system", "/opt/app", "/usr/", "25.2", "config.yaml:21:14: '/usr/' cannot be a mount point: an image must not cover a part of the system (most use /user-environment)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, dir, err := matrix(t, strings.Replace(matrixText, c.from, c.to, 1))
			if err != nil {
				t.Fatal(err)
			}
			v := versionOf(m, "app", c.version)
			if got := strings.ReplaceAll(v.Problems.Error(), dir+"/", ""); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			for _, other := range m.Versions {
				if other.Version != c.version && len(other.Problems) > 0 {
					t.Errorf("version %s has %v", other.Version, other.Problems)
				}
			}
		})
	}
}

// The mount point is part of content keys, so it is written in one way.
func TestMountIsClean(t *testing.T) {
	m, _, err := matrix(t, strings.Replace(matrixText, "/opt/app", "/opt//app/", 1))
	if err != nil {
		t.Fatal(err)
	}
	if v := versionOf(m, "app", "25.2"); v.Mount != "/opt/app" || len(v.Problems) > 0 {
		t.Errorf("%+v", v)
	}
}

func TestBrokenClusters(t *testing.T) {
	m, _, err := matrix(t, strings.Replace(strings.Replace(matrixText, "    runner: f7t\n", "", 1), "uarch: a100", "uarch: gh200", 1))
	if err != nil {
		t.Fatal(err)
	}
	if p := m.Cluster("eiger").Problems; len(p) != 1 || p[0].Message != "the key 'runner' is missing in 'clusters.eiger'" {
		t.Errorf("%v", p)
	}
	if p := m.Cluster("daint").Problems; len(p) != 1 || p[0].Message != "cluster 'daint' has the target 'gh200' twice" {
		t.Errorf("%v", p)
	}
}

func TestMicroarchitectureThatCannotBePublished(t *testing.T) {
	m, _, err := matrix(t, strings.Replace(matrixText, "uarch: a100", "uarch: A100", 1))
	if err != nil {
		t.Fatal(err)
	}
	if p := m.Cluster("daint").Problems; len(p) != 1 || p[0].Message != "images for 'A100' cannot be published" || p[0].Hint == "" {
		t.Errorf("%v", p)
	}
}

func TestNoMatrix(t *testing.T) {
	if _, err := site.LoadMatrix(filepath.Join(t.TempDir(), "none")); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"":                                "the document must be a mapping, not null",
		"clusters: {}\n":                  "the key 'uenvs' is missing",
		"clusters: {}\nuenvs: []\n":       "'uenvs' must be a mapping, not a list",
		"clusters: {}\nuenvs: {}\nx: 1\n": "unknown key 'x'",
		"clusters: [\n":                   "not valid YAML",
	} {
		if _, _, err := matrix(t, text); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The public matrix has one fault, which its own validator lets pass. The recipes
// that are not in the corpus are made up.
func TestRealMatrix(t *testing.T) {
	m, err := site.LoadMatrix(testdirs.Corpus(t, "alps-uenv/config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	references := 0
	for _, v := range m.Versions {
		references += len(v.Recipes)
		for _, p := range v.Problems.Errors() {
			if !strings.Contains(p.Message, "does not exist") {
				faults = append(faults, p.Message)
			}
		}
	}
	if len(faults) != 1 || faults[0] != "prgenv-gnu/26.3 is deployed to a100 on 'bristen' without a recipe for a100" {
		t.Errorf("faults: %q", faults)
	}
	if len(m.Clusters) != 8 || len(m.Versions) != 62 || references != 137 {
		t.Errorf("%d clusters, %d versions, %d recipe references", len(m.Clusters), len(m.Versions), references)
	}
}

func FuzzLoadMatrix(f *testing.F) {
	f.Add(matrixText)
	f.Add("clusters: {a: {targets: [1], runner: []}}\nuenvs: {b: {c: {recipes: {d: /}, deploy: {e: [[]]}}}}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "config.yaml")
		writeFile(t, path, text)
		if _, err := site.LoadMatrix(path); err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("kind of %v", err)
		}
	})
}

// versionOf returns a version of a uenv, nil if there is none.
func versionOf(m *site.Matrix, uenv, version string) *site.MatrixVersion {
	i := slices.IndexFunc(m.Versions, func(v site.MatrixVersion) bool { return v.Uenv == uenv && v.Version == version })
	if i < 0 {
		return nil
	}
	return &m.Versions[i]
}
