package build_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

// needSpack skips a test where there is no Spack that reads recipes of format 1.
func needSpack(t *testing.T) {
	t.Helper()
	if os.Getenv(spack.Variable) == "" {
		t.Skipf("%s is not set: see docs/spack.md for a Spack to test with", spack.Variable)
	}
	in, err := spack.Open(os.Getenv(spack.Variable))
	if err == nil {
		err = in.Reads(1)
	}
	if err != nil {
		t.Fatal(err)
	}
	needSandbox(t)
}

// options returns how to build a recipe on the cluster of this repository.
func options(t *testing.T, dir string) build.Options {
	t.Helper()
	r, err := recipe.Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := site.LoadCluster("../../clusters/debian12")
	if err != nil {
		t.Fatal(err)
	}
	return build.Options{
		Stack: stack.Input{Recipe: r, Cluster: cluster}, System: "debian12", UArch: "generic",
		Root: buildRoot(t), Offline: true, LogDir: filepath.Join(t.TempDir(), "logs"),
	}
}

func mustBuild(t *testing.T, o build.Options) *build.Result {
	t.Helper()
	var events log
	o.Events = events.sink()
	r, err := build.Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(events.lines, "\n"))
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// run runs a shell script with the store at its mount point and returns what it said.
func run(t *testing.T, r *build.Result, script string) string {
	t.Helper()
	spec := sandbox.Spec{Binds: []sandbox.Bind{{Source: r.Store, Target: r.Mount}}}
	c, err := spec.Command(proc.Cmd{Path: "/bin/sh", Args: []string{"-ec", script}, Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Output(t.Context())
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func TestHelloSpack(t *testing.T) {
	needSpack(t)
	r := mustBuild(t, options(t, "../../recipes/hello-spack/1.0"))
	if out := run(t, r, r.Mount+"/env/default/bin/hello"); !strings.HasPrefix(out, "hello from a user environment") {
		t.Errorf("the program said %q", out)
	}
	if out := run(t, r, "readlink "+r.Mount+"/env/default/bin/gcc"); out != "/usr/bin/gcc\n" {
		t.Errorf("the view links gcc to %q", out)
	}
	if _, ok := r.Meta.Views["modules"]; ok {
		t.Error("there is a view modules, though modules are off")
	}
	i := slices.IndexFunc(r.Report.Packages, func(p build.Package) bool { return p.Name == "hello-uenv" })
	if i < 0 || r.Report.Packages[i].Version != "1.0" || r.Report.Packages[i].Seconds == 0 || r.Report.Packages[i].External {
		t.Errorf("packages: %+v", r.Report.Packages)
	}
	if r.Report.Spack == nil || r.Report.Spack.Version == "" || len(r.Report.Stages) < 5 {
		t.Errorf("report: %+v", r.Report)
	}
}

func TestDemoStack(t *testing.T) {
	needSpack(t)
	r := mustBuild(t, options(t, "../../recipes/demo-stack/1.0"))
	if out := run(t, r, "cat "+r.Mount+"/share/demo-stack/*"); out != "installed at /user-environment\n5000\n" {
		t.Errorf("the hooks left %q", out)
	}
	// Two views of one concretization: the same program, other links.
	out := run(t, r, `cd `+r.Mount+`/env; for v in default develop; do readlink -f $v/bin/convert-units; ls -A $v; done`)
	want := regexp.MustCompile(`^(\S+/units-cli-1\.2-\w+/bin/convert-units)
.spack
activate.sh
bin
env.json
(\S+)
.spack
activate.sh
bin
env.json
include
lib
share
$`)
	if m := want.FindStringSubmatch(out); m == nil || m[1] != m[2] {
		t.Errorf("views:\n%s", out)
	}
	checkViews(t, r)
	module := run(t, r, "cat "+r.Mount+"/modules/units-cli/1.2")
	if !strings.Contains(module, "prepend-path PATH {"+r.Mount+"/") || strings.Contains(module, " on 20") {
		t.Errorf("module file:\n%s", module)
	}
	for _, p := range r.Report.Packages {
		if p.Name == "units-data" && p.Version != "2024" {
			t.Errorf("packages.yaml of the recipe asks for units-data@2024, not %s", p.Version)
		}
	}
}

// checkViews looks at what the views of demo-stack do to the environment.
func checkViews(t *testing.T, r *build.Result) {
	t.Helper()
	names := r.Meta.ViewNames()
	if want := []string{"default", "develop", "modules", "spack"}; !slices.Equal(names, want) {
		t.Fatalf("views: %q", names)
	}
	env, err := r.Meta.Apply([]string{"develop", "modules"}, []string{"PATH=/opt/bin", "CPATH=/opt/include"})
	if err != nil {
		t.Fatal(err)
	}
	root := r.Mount + "/env/develop"
	for _, want := range []string{
		"PATH=" + root + "/bin:/usr/bin:/bin:/opt/bin", "CPATH=" + root + "/include:/opt/include",
		"LD_LIBRARY_PATH=" + root + "/lib", "UNITS_HOME=" + root, "MODULEPATH=" + r.Mount + "/modules",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("missing: %s\nin: %q", want, env)
		}
	}
	values := r.Meta.Views["default"].Env.Values
	if values.List["LD_LIBRARY_PATH"] != nil {
		t.Error("a prefix path that does not exist in the view is set")
	}
	for name, ops := range values.List {
		if strings.Contains(fmt.Sprint(ops), "/uenv-ci") {
			t.Errorf("%s names the build directory: %v", name, ops)
		}
	}
	if ref := r.Meta.Views["spack"].Env.Values.Scalar["UENV_SPACK_REF"]; ref == nil || *ref != "v0.23.0" {
		t.Errorf("UENV_SPACK_REF: %v", ref)
	}
}

func TestSpackBuildsTheSameTwice(t *testing.T) {
	needSpack(t)
	first := digests(t, mustBuild(t, options(t, "../../recipes/demo-stack/1.0")).Store)
	second := digests(t, mustBuild(t, options(t, "../../recipes/demo-stack/1.0")).Store)
	for name, digest := range first {
		if second[name] != digest {
			t.Errorf("%s differs", name)
		}
		delete(second, name)
	}
	for name := range second {
		t.Errorf("%s is new", name)
	}
}

// digests describes every entry of a tree.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		switch d.Type() {
		case fs.ModeSymlink:
			to, _ := os.Readlink(path)
			content = []byte(to)
		case 0:
			content, err = os.ReadFile(path)
		}
		found[name] = fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSpackWithoutSandbox installs through a link at the mount point.
func TestSpackWithoutSandbox(t *testing.T) {
	needSpack(t)
	o := options(t, "../../recipes/hello-spack/1.0")
	o.NoSandbox, o.Stack.Mount = true, filepath.Join(t.TempDir(), "mount")
	r := mustBuild(t, o)
	out, err := proc.Cmd{Path: r.Mount + "/env/default/bin/hello"}.Output(t.Context())
	if err != nil || !strings.HasPrefix(string(out), "hello from") {
		t.Errorf("%q, %v", out, err)
	}
	if path := r.Meta.Views["default"].Env.Values.List["PATH"][0].Value[0]; path != r.Mount+"/env/default/bin" {
		t.Errorf("PATH begins with %s", path)
	}
}
