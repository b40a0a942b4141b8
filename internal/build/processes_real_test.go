package build_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
)

// widePackage is a package that needs no other of its kind. Built with more than one
// job it waits until another one is built beside it, so it fails in one process.
func widePackage(name, end string) string {
	return fmt.Sprintf(`import os
import time

from spack.package import *


class %s(Package):
    """Something to build beside others."""

    homepage = "https://uenv-ci.dev"
    has_code = False
    version("1.0")

    def install(self, spec, prefix):
        mkdirp("/tmp/wide", prefix.share)
        open("/tmp/wide/" + spec.name, "w").close()
        for _ in range(600):
            if make_jobs == 1 or len(os.listdir("/tmp/wide")) > 1:
                break
            time.sleep(0.1)
        else:
            raise InstallError("nothing is built beside " + spec.name)
        with open(join_path(prefix.share, spec.name), "w") as f:
            f.write("1")
%s
`, strings.ReplaceAll(name, "-", ""), end)
}

// wideRecipe is a recipe of three packages that do not need each other.
func wideRecipe(t *testing.T, ends map[string]string) string {
	files := map[string]string{"environments.yaml": helloEnvironment("wide-a', 'wide-b', 'wide-c")}
	for _, name := range []string{"Wide-A", "Wide-B", "Wide-C"} {
		lower := strings.ToLower(name)
		files["repo/packages/"+lower+"/package.py"] = widePackage(name, ends[lower])
	}
	return changed(t, files)
}

// TestSeveralProcesses: packages that do not need each other are built at the same
// time, and the store is as if one process had built one after the other.
func TestSeveralProcesses(t *testing.T) {
	needSpack(t)
	dir := wideRecipe(t, nil)
	alone := options(t, dir)
	alone.Jobs = 1
	o := options(t, dir)
	var cache string
	o.Stack.Mirrors, cache = cacheFile(t, "")
	o.Jobs, o.Protected = 4, true
	first, second := mustBuild(t, alone), mustBuild(t, o)

	if logs := names(t, o.LogDir, "*install*"); len(logs) != 2 {
		t.Errorf("logs: %q", logs)
	}
	if found := names(t, cache, "*.spec.json"); len(found) != 4 || second.Report.Cache.Pushed != 4 {
		t.Errorf("%d packages pushed: %q", second.Report.Cache.Pushed, found)
	}
	if !slices.EqualFunc(first.Report.Packages, second.Report.Packages, func(a, b build.Package) bool { return a.Hash == b.Hash && b.External == (b.Seconds == 0) }) {
		t.Errorf("packages:\n%+v\n%+v", first.Report.Packages, second.Report.Packages)
	}
	want, got := digests(t, first.Store), digests(t, second.Store)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs", name)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is new", name)
	}

	again := o
	again.LogDir = filepath.Join(t.TempDir(), "logs")
	if r := mustBuild(t, again); r.Report.Cache.Hits != 4 || len(names(t, again.LogDir, "*install*")) != 1 {
		t.Errorf("%+v, logs %q", r.Report.Cache, names(t, again.LogDir, "*install*"))
	}
}

// TestOneProcessFails: the error is that of the package, whichever process ends first,
// and no other process goes on.
func TestOneProcessFails(t *testing.T) {
	needSpack(t)
	const fails = "        time.sleep(5)\n        raise InstallError(\"this is the reason\")\n"
	for name, ends := range map[string]map[string]string{
		"others wait": {"wide-b": fails},
		"others work": {"wide-b": fails, "wide-a": "        time.sleep(10000)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, wideRecipe(t, ends))
			o.Jobs = 4
			_, err := build.Run(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), "wide-b-1.0 failed in phase install") || !strings.Contains(err.Error(), "this is the reason") {
				t.Errorf("%v", err)
			}
			if logs := names(t, o.LogDir, "*install*"); len(logs) != 2 {
				t.Errorf("logs: %q", logs)
			}
		})
	}
}
