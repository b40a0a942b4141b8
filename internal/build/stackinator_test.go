package build_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/site"
)

// stackinatorDouble makes what looks like a virtual environment with stackinator.
// Its programs say and leave what testdata/stackinator has recorded; ending is what
// the makefile does, in which SAID is the place of the recordings.
func stackinatorDouble(t *testing.T, ending string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "said"), os.DirFS("testdata/stackinator")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../spack/testdata/compile.txt")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "said/failure.txt"), string(text), 0o644)
	ending = strings.ReplaceAll(ending, "SAID", filepath.Join(dir, "said"))
	script := strings.NewReplacer("DIR", dir, "ENDING", ending)
	write(t, filepath.Join(dir, "bin/python3"), script.Replace(`#!/bin/sh
if [ "$1" = -c ]; then printf '%s\n' DIR DIR DIR 4.1.0-dev; exit; fi
exec /bin/sh "$@"
`), 0o755)
	write(t, filepath.Join(dir, "bin/stack-config"), script.Replace(`#!/usr/bin/env -S uv run --script
while [ $# -gt 0 ]; do
  case $1 in
  -b) build=$2; shift ;;
  -m) mount=$2; shift ;;
  -r) recipe=$2; shift ;;
  -s) cluster=$2; shift ;;
  --no-bwrap) bwrap=no ;;
  esac
  shift
done
[ "$bwrap" = no ] && [ -f "$cluster/packages.yaml" ] && [ -z "$(ls -A "$mount")" ] || exit 1
cat DIR/said/configure.txt
mkdir -p "$build/spack/lib/spack/spack" "$mount/meta" "$mount/.spack-db"
echo '__version__ = "0.23.0"' >"$build/spack/lib/spack/spack/__init__.py"
cp -r "$recipe" "$mount/meta/recipe"
cp DIR/said/configure.json "$mount/meta/"
printf 'post-install:\n\tENDING\n' >"$build/Makefile"
`), 0o755)
	return dir
}

func stackinatorOptions(t *testing.T, double string) build.Options {
	t.Helper()
	o := options(t, "../../recipes/demo-stack/1.0")
	o.Engine, o.Stackinator = build.EngineStackinator, double
	return o
}

func TestStackinator(t *testing.T) {
	needSandbox(t)
	double := stackinatorDouble(t, `cat SAID/make.txt; cp SAID/env.json /user-environment/meta/; cp SAID/index.json /user-environment/.spack-db/`)
	r := mustBuild(t, stackinatorOptions(t, double))

	if s := r.Report.Spack; s == nil || s.Version != "0.23.0" || s.Commit != "081460f0df4e3846517f9ff5a5edcaf84ba8c3b3" {
		t.Errorf("Spack: %+v", s)
	}
	packages := map[string]build.Package{}
	for _, p := range r.Report.Packages {
		packages[p.Name] = p
	}
	if p := packages["libunits"]; p.Version != "1.1" || p.Seconds != 0.31 || p.External {
		t.Errorf("libunits: %+v", p)
	}
	if p := packages["glibc"]; !p.External || p.Seconds != 0 {
		t.Errorf("glibc: %+v", p)
	}
	if _, ok := r.Meta.Views["develop"]; !ok {
		t.Errorf("views: %q", r.Meta.ViewNames())
	}
	text, err := os.ReadFile(filepath.Join(r.Store, "meta/configure.json"))
	if err != nil {
		t.Fatal(err)
	}
	var about struct {
		Time  string
		Host  struct{ Node string }
		Spack struct{ Repo string }
	}
	if err := json.Unmarshal(text, &about); err != nil || about.Time != "19800101 12:01:00" || about.Host.Node != "unknown" || about.Spack.Repo != "file:///srv/spack" {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(r.Store, "meta/recipe/environments.yaml")); err != nil {
		t.Error(err)
	}
}

func TestStackinatorFails(t *testing.T) {
	needSandbox(t)
	double := stackinatorDouble(t, `cat SAID/failure.txt; exit 1`)
	o := stackinatorOptions(t, double)
	_, err := build.Run(t.Context(), o)
	if class := classOf(err); class == "" || !strings.Contains(err.Error(), "hello-uenv-1.0 failed in phase install") {
		t.Errorf("class %q: %v", class, err)
	}
	left, _ := filepath.Glob(filepath.Join(o.Root, "*", "*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestStackinatorRefuses(t *testing.T) {
	needSandbox(t)
	uv := t.TempDir()
	write(t, filepath.Join(uv, "bin/stack-config"), "#!/usr/bin/env -S uv run --script\n", 0o755)
	t.Setenv("PATH", "/usr/bin:/bin")
	for name, c := range map[string]struct {
		change func(*build.Options)
		want   string
		kind   fault.Kind
	}{
		"no such engine": {func(o *build.Options) { o.Engine = "turbo" }, `there is no engine "turbo"`, fault.Usage},
		"no sandbox":     {func(o *build.Options) { o.NoSandbox = true }, "in the sandbox only", fault.Usage},
		"build cache":    {func(o *build.Options) { o.Stack.Mirrors = &site.Mirrors{} }, "no build caches", fault.Usage},
		"change cache":   {func(o *build.Options) { o.ChangeCache = &site.Mirrors{} }, "no build caches", fault.Usage},
		"source cache":   {func(o *build.Options) { o.SourceCache = t.TempDir() }, "no source cache", fault.Usage},
		"air-gapped":     {func(o *build.Options) { o.AirGapped = true }, "cannot list the sources", fault.Usage},
		"hooks alone":    {func(o *build.Options) { o.Offline, o.Network = true, true }, "cannot give hooks alone a network", fault.Usage},
		"strict views":   {func(o *build.Options) { o.StrictViews = true }, "makes views without checking", fault.Usage},
		"another engine": {func(o *build.Options) { o.Engine, o.Stackinator = "", "/none" }, "the engine is not stackinator", fault.Usage},
		"not installed":  {func(o *build.Options) { o.Stackinator = "" }, "no stack-config on PATH", fault.NotFound},
		"not there":      {func(o *build.Options) { o.Stackinator = "/none" }, "/none is not stack-config", fault.NotFound},
		"a checkout":     {func(o *build.Options) { o.Stackinator = uv }, "there is no Python beside", fault.Invalid},
	} {
		o := stackinatorOptions(t, "")
		c.change(&o)
		_, err := build.Run(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
			t.Errorf("%s: %v (%v)", name, err, fault.KindOf(err))
		}
	}
}
