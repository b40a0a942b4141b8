package site_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/testdirs"
)

// write makes files below a new directory; a text "-> x" makes a link to x.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRealClustersLoad(t *testing.T) {
	for _, branch := range []string{"main", "v5"} {
		dir := testdirs.Corpus(t, "cluster-config/"+branch)
		names := site.Clusters(dir)
		if len(names) < 8 {
			t.Fatalf("clusters of %s: %v", branch, names)
		}
		for _, name := range names {
			c, err := site.LoadCluster(filepath.Join(dir, name))
			if err != nil {
				t.Error(err)
				continue
			}
			if c.Name != name || len(c.PackageRepos) != 1 || c.Packages == nil || (c.Compilers != nil) != (branch == "v5") || (c.Network != nil) != (branch == "main") || len(c.Warnings) > 0 {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
}

func TestLoadCluster(t *testing.T) {
	dir := write(t, map[string]string{
		"daint/packages.yaml":           "packages:\n  gcc: {}\n",
		"daint/network.yaml":            "-> ../site/network.yaml",
		"daint/repos.yaml":              "repos:\n- ../site/repo\n- ../other\n",
		"daint/concretizer.yaml":        "concretizer: {reuse: false}\n",
		"daint/notes.txt":               "any",
		"daint/sub/x":                   "not listed",
		"site/network.yaml":             "mpi:\n  cray-mpich: {specs: [libfabric]}\n  openmpi:\n",
		"site/repo/packages/p/x":        "",
		"other/packages/q/x":            "",
		"eiger/packages.yaml":           "packages: {gcc: {}}\n",
		"broken/packages.yaml":          "packages:\n",
		"broken/network.yaml":           "mpi:\n  cray-mpich: {spec: [x]}\n",
		"broken/repos.yaml":             "repos: [../site/repo, ../none]\n",
		"broken/mirrors.yaml":           "",
		"broken/dangling":               "-> none",
		"beside/site/repo/packages.txt": "",
	})
	c, err := site.LoadCluster(filepath.Join(dir, "daint"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Packages.Get("gcc") == nil || c.Network.Get("mpi").Get("openmpi") == nil || c.Concretizer == nil || c.Compilers != nil ||
		strings.Join(c.OtherFiles, " ") != "concretizer.yaml network.yaml notes.txt packages.yaml repos.yaml" ||
		strings.Join(c.PackageRepos, " ") != filepath.Join(dir, "site/repo")+" "+filepath.Join(dir, "other") {
		t.Errorf("%+v", c)
	}
	_, err = site.LoadCluster(filepath.Join(dir, "broken"))
	want := `dangling: the link leads nowhere
mirrors.yaml: a mirrors.yaml in the cluster configuration is not supported (give mirrors and caches on the command line)
network.yaml:2:16: unknown key 'spec' in 'mpi.cray-mpich' (did you mean 'specs'?)
packages.yaml:1:10: 'packages' must be a mapping, not null
repos.yaml:1:23: '../none' is not a package repository (it needs a directory 'packages')`
	if err == nil || strings.ReplaceAll(err.Error(), dir+"/broken/", "") != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestNoSuchCluster(t *testing.T) {
	dir := write(t, map[string]string{"daint/packages.yaml": "packages: {}", "eiger/packages.yaml": "packages: {}", "file": ""})
	for name, hint := range map[string]string{"diant": "did you mean 'daint'?", "x": "there is daint, eiger"} {
		_, err := site.LoadCluster(filepath.Join(dir, name))
		if fault.KindOf(err) != fault.NotFound || fault.HintOf(err) != hint {
			t.Errorf("%s: %v, hint %s", name, err, fault.HintOf(err))
		}
	}
	if _, err := site.LoadCluster(filepath.Join(dir, "file")); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v", err)
	}
}
