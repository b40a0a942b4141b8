package build_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// changed returns a copy of the recipe hello-spack with other files.
func changed(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "recipe")
	if err := os.CopyFS(dir, os.DirFS("../../recipes/hello-spack/1.0")); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, "-install") {
			mode = 0o755
		}
		write(t, filepath.Join(dir, name), text, mode)
	}
	return dir
}

func helloEnvironment(spec string) string {
	return "hello:\n  compiler:\n  - toolchain: gcc\n    spec: gcc@12.2\n  specs: ['" + spec + "']\n  views:\n    default:\n"
}

const helloPackage = "repo/packages/hello-uenv/package.py"

// fetched is a package with an archive at a URL.
const fetched = `from spack.package import *


class HelloUenv(Package):
    """A package whose archive is not what its checksum says."""

    homepage = "https://uenv-ci.dev"
    url = "file:///etc/os-release"
    version("1.0", sha256="` + "0000000000000000000000000000000000000000000000000000000000000000" + `", expand=False)

    def install(self, spec, prefix):
        install("*", prefix)
`

func TestSpackFailures(t *testing.T) {
	needSpack(t)
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"compile": {
			map[string]string{"repo/packages/hello-uenv/hello.c": "int main(void) { return undeclared; }\n"},
			[]string{"install hello: hello-uenv-1.0 failed in phase install: ProcessError", "error: 'undeclared' undeclared"},
		},
		"checksum": {
			map[string]string{helloPackage: fetched},
			[]string{"install hello: hello-uenv-1.0: ChecksumError: sha256 checksum failed"},
		},
		"conflict": {
			map[string]string{"environments.yaml": helloEnvironment("hello-uenv@7")},
			[]string{"concretize hello: failed to concretize", "Cannot satisfy 'hello-uenv@7'"},
		},
		"unknown": {
			map[string]string{"environments.yaml": helloEnvironment("nothing-such")},
			[]string{"concretize hello: Package", "nothing-such' not found"},
		},
		"compiler": {
			map[string]string{"environments.yaml": strings.Replace(helloEnvironment("hello-uenv"), "gcc@12.2", "gcc@11", 1)},
			[]string{"concretize hello: write compilers.yaml: the compiler gcc@11 is not among those of the toolchain gcc"},
		},
		"pre-install": {
			map[string]string{"pre-install": "#!/bin/sh\necho no licence >&2\nexit 3\n"},
			[]string{"pre-install: pre-install exited with code 3\n  no licence"},
		},
		"post-install": {
			map[string]string{"post-install": "#!/bin/sh\ntouch /etc/x {{ env.build }}/../x\n"},
			[]string{"post-install: post-install exited with code 1", "Read-only file system"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, changed(t, test.files))
			_, err := build.Run(t.Context(), o)
			if err == nil {
				t.Fatal("it built")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if logs, _ := os.ReadDir(o.LogDir); len(logs) == 0 && name != "compiler" {
				t.Error("no logs were kept")
			}
		})
	}
}

func TestSpackIsSomethingElse(t *testing.T) {
	needSandbox(t)
	old := t.TempDir()
	write(t, filepath.Join(old, "bin/spack"), "#!/bin/sh\n", 0o755)
	write(t, filepath.Join(old, "lib/spack/spack/__init__.py"), "__version__ = \"1.1.0\"\n", 0o644)
	tooOld := t.TempDir()
	write(t, filepath.Join(tooOld, "bin/spack"), "#!/bin/sh\n", 0o755)
	write(t, filepath.Join(tooOld, "lib/spack/spack/__init__.py"), "spack_version = \"0.20.3\"\n", 0o644)
	for dir, want := range map[string]string{
		tooOld:          "recipe format 1 needs Spack 0.21 to 0.23, but",
		t.TempDir():     "is not a Spack installation",
		"/no/such/path": "no such file",
		old:             "recipe format 1 needs Spack 0.21 to 0.23, but",
	} {
		o := options(t, "../../recipes/hello-spack/1.0")
		o.Spack = dir
		if _, err := build.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// A Spack with changes that are in no commit is used, but not in silence.
func TestSpackIsDirty(t *testing.T) {
	needSandbox(t)
	if _, ok := proc.Look("git"); !ok {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bin/spack"), "#!/bin/sh\n", 0o755)
	write(t, filepath.Join(dir, "lib/spack/spack/__init__.py"), "spack_version = \"0.23.0\"\n", 0o644)
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "Spack"}} {
		if _, err := (proc.Cmd{Path: "git", Args: append([]string{"-C", dir}, args...), Env: os.Environ()}).Output(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	said := func() string {
		o := options(t, changed(t, map[string]string{"pre-install": "#!/bin/sh\nexit 1\n"}))
		var events log
		o.Spack, o.Events = dir, events.sink()
		if _, err := build.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "pre-install") {
			t.Fatal(err)
		}
		return strings.Join(events.lines, "\n")
	}
	const want = "has changes that are in no commit"
	if text := said(); strings.Contains(text, want) {
		t.Errorf("a clean one: %s", text)
	}
	write(t, filepath.Join(dir, "lib/spack/spack/__init__.py"), "spack_version = \"0.23.0\"\nchanged = True\n", 0o644)
	if text := said(); !strings.Contains(text, want) {
		t.Errorf("nothing was said: %s", text)
	}
}

func TestSpackIsMissing(t *testing.T) {
	needSandbox(t)
	t.Setenv("UENV_CI_SPACK", "")
	o := options(t, "../../recipes/hello-spack/1.0")
	if _, err := build.Run(t.Context(), o); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// TestSpackCancel stops Spack in the middle of an installation.
func TestSpackCancel(t *testing.T) {
	needSpack(t)
	o := options(t, changed(t, map[string]string{helloPackage: strings.Replace(sleeping, "SECONDS", "1000", 1)}))
	ctx, cancel := cancelOn(t, &o, func(e event.Event) bool { return e.Message == "hello-uenv-1.0" })
	defer cancel()
	if _, err := build.Run(ctx, o); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("%v", err)
	}
}

const sleeping = `from spack.package import *


class HelloUenv(Package):
    """A package that takes long."""

    homepage = "https://uenv-ci.dev"
    has_code = False
    version("1.0")

    def install(self, spec, prefix):
        Executable("/bin/sleep")("SECONDS")
`

// TestSpackClone: without a Spack on the machine, the one that the recipe asks
// for is cloned. What is cloned here is too new, which shows that it was.
func TestSpackClone(t *testing.T) {
	needSandbox(t)
	git, ok := proc.Look("git")
	if !ok {
		t.Skip("git is not installed")
	}
	repo := t.TempDir()
	write(t, filepath.Join(repo, "bin/spack"), "#!/bin/sh\n", 0o755)
	write(t, filepath.Join(repo, "lib/spack/spack/__init__.py"), "__version__ = \"1.7.0\"\n", 0o644)
	env := []string{"HOME=" + repo, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "-m", "x"}, {"branch", "release"}} {
		if err := (proc.Cmd{Path: git, Args: args, Dir: repo, Env: env}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("UENV_CI_SPACK", "")
	t.Setenv("PATH", filepath.Dir(git)+":/usr/bin:/bin")
	config := "name: hello-spack\nversion: 1\nspack:\n  repo: file://" + repo + "\n  commit: %s\nmodules: false\n"
	for reference, want := range map[string]string{"release": "is 1.7.0", "none": "clone file://"} {
		o := options(t, changed(t, map[string]string{"config.yaml": fmt.Sprintf(config, reference)}))
		o.Offline = false
		if _, err := build.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) || fault.HintOf(err) == "" && reference == "none" {
			t.Errorf("%s: %v", reference, err)
		}
	}
}

// TestAnotherSpack: a Spack of this machine takes the place of what the recipe
// asks for, but not in silence.
func TestAnotherSpack(t *testing.T) {
	needSpack(t)
	for reference, want := range map[string]string{
		"releases/v0.21":           "warning spack: the recipe asks for Spack releases/v0.21, ",
		strings.Repeat("ab12", 10): "warning spack: the recipe asks for Spack ab12",
		"v0.23.0":                  "",
	} {
		config := "name: hello-spack\nversion: 1\nspack:\n  repo: none\n  commit: " + reference + "\nmodules: false\n"
		o := options(t, changed(t, map[string]string{"config.yaml": config, "pre-install": "#!/bin/sh\nexit 1\n"}))
		var events log
		o.Events = events.sink()
		if _, err := build.Run(t.Context(), o); err == nil {
			t.Fatal("it built")
		}
		said := strings.Join(events.lines, "\n")
		if !strings.Contains(said, want) || want == "" && strings.Contains(said, "asks for") {
			t.Errorf("%s: %s", reference, said)
		}
	}
}
