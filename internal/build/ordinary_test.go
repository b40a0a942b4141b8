package build_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/testdirs"
)

// TestOrdinaryUser repeats tests as an ordinary user where they run as root.
func TestOrdinaryUser(t *testing.T) {
	setpriv, ok := proc.Look("setpriv")
	if os.Getuid() != 0 || !ok {
		t.Skip("needs root and setpriv to become another user")
	}
	needSandbox(t)
	dir := testdirs.Visible(t)
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o777)); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	test := filepath.Join(dir, "build.test")
	if err := os.WriteFile(test, self, 0o755); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c := proc.Cmd{
		Path: setpriv, Dir: here,
		Args: []string{"--reuid=65534", "--regid=65534", "--clear-groups", test, "-test.run", "Script|Mount|Environment|Cancel|Sweep|Removal|Foreign|Kill|HelloSpack|IsNotReplaced|AreNot|IsNotFollowed"},
		Env:  []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + tmp, "HOME=/nonexistent"},
	}
	for _, name := range []string{spack.Variable, spack.PythonVariable} {
		c.Env = append(c.Env, name+"="+os.Getenv(name))
	}
	if out, err := c.Output(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
