package build_test

import (
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
)

// fakeGCC is a package that is built like a compiler and calls the system's.
const fakeGCC = `from spack.package import *


class Gcc(Package):
    """A compiler that has another one do the work."""

    homepage = "https://uenv-ci.dev"
    has_code = False
    version("13.1.0")
    version("12.2.0")
    variant("languages", default="c,c++", values=("c", "c++", "fortran"), multi=True, description="Languages")
    variant("build_type", default="Release", values=("Release",), description="Build type")
    variant("bootstrap", default=True, description="Bootstrap")
    variant("strip", default=False, description="Strip")

    def install(self, spec, prefix):
        mkdirp(prefix.bin)
        for name in ("gcc", "g++"):
            path = join_path(prefix.bin, name)
            with open(path, "w") as f:
                f.write('#!/bin/sh\ncase "$1" in -dump*version) echo {}; exit;; esac\n'.format(spec.version))
                f.write('exec /usr/bin/{} -DFAKE="{}" "$@"\n'.format(name, spec.version))
            set_executable(path)
`

// TestCompilerChain builds a compiler with the system's, and a program with that.
func TestCompilerChain(t *testing.T) {
	needSpack(t)
	dir := changed(t, map[string]string{
		"repo/packages/gcc/package.py":     fakeGCC,
		"repo/packages/hello-uenv/hello.c": "#include <stdio.h>\n#define S(x) #x\n#define T(x) S(x)\nint main(void) { return puts(T(FAKE)) < 0; }\n",
		"compilers.yaml":                   "bootstrap:\n  spec: gcc@12.2\ngcc:\n  specs: [gcc@13.1]\n",
		"environments.yaml":                strings.Replace(helloEnvironment("hello-uenv"), "gcc@12.2", "gcc@13", 1),
		// The system's gcc is there, but others may be built.
		"packages.yaml": "packages:\n  gcc:\n    externals:\n    - spec: gcc@12.2.0 languages='c,c++'\n      prefix: /usr\n  gmake:\n    buildable: false\n    externals:\n    - spec: gmake@4.3\n      prefix: /usr\n",
	})
	r := mustBuild(t, options(t, dir))
	if out := run(t, r, r.Mount+"/env/default/bin/hello"); out != "13.1.0\n" {
		t.Errorf("the program was not built by the compiler of the recipe: %q", out)
	}
	if out := run(t, r, "readlink "+r.Mount+"/env/default/bin/gcc"); !strings.HasPrefix(out, r.Mount+"/") || !strings.Contains(out, "/gcc-13.1.0-") {
		t.Errorf("the view links gcc to %q", out)
	}
	if out := run(t, r, "cat "+r.Mount+"/config/compilers.yaml"); !strings.Contains(out, "gcc@=13.1.0") || strings.Contains(out, "gcc@=12.2.0") {
		t.Errorf("compilers for users:\n%s", out)
	}
	checkPackage(t, r, "gcc", "13.1.0")
}

func checkPackage(t *testing.T, r *build.Result, name, version string) {
	t.Helper()
	for _, p := range r.Report.Packages {
		if p.Name == name && p.Version == version && !p.External && p.Seconds > 0 {
			return
		}
	}
	t.Errorf("%s@%s was not built: %+v", name, version, r.Report.Packages)
}
