package build_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/proc"
)

// TestShellWhereSpackFailed: the shell of a package that failed is in its
// directory, with its environment and the build's Spack at hand.
func TestShellWhereSpackFailed(t *testing.T) {
	needSpack(t)
	const recipe = "repo/packages/hello-uenv/package.py"
	text, err := os.ReadFile(filepath.Join("../../recipes/hello-spack/1.0", recipe))
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(text), "mkdirp(prefix.bin)", `Executable("false")()`, 1)
	o := options(t, changed(t, map[string]string{recipe: broken}))
	var out bytes.Buffer
	err = build.OpenShell(t.Context(), o, build.Shell{
		Stdin:  strings.NewReader("pwd\n. ./spack-build-env.txt\necho cc=$SPACK_CC\nspack -e /uenv-ci/environments/hello find\nexit 5\n"),
		Stdout: &out, Stderr: &out,
	})
	if exit, ok := errors.AsType[*proc.ExitError](err); !ok || exit.Code != 5 {
		t.Errorf("%v", err)
	}
	for _, want := range []string{"/spack-stage-hello-uenv-1.0-", "cc=/", "hello-uenv"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(o.Root, "*", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
