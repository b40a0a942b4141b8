package sandbox

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/proc"
)

// TestTether breaks the tether before the sandbox begins: it must do nothing.
func TestTether(t *testing.T) {
	need(t)
	c, err := Spec{}.Command(proc.Cmd{Path: "/bin/echo", Args: []string{"alive"}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.Output(t.Context()); string(out) != "alive\n" || err != nil {
		t.Errorf("with its owner alive: %q, %v", out, err)
	}
	here, there, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	here.Close() // as the kernel does when a process ends
	defer there.Close()
	c.Tether, c.ExtraFiles = false, []*os.File{there}
	out, err := c.Output(t.Context())
	var exit *proc.ExitError
	if !errors.As(err, &exit) || len(out) > 0 {
		t.Errorf("with its owner dead: %q, %v", out, err)
	}
}

// The program of a sandbox gets its environment as it is, with the file descriptors
// that it should have and no more.
func TestWhatAProgramGets(t *testing.T) {
	need(t)
	env := []string{
		"PATH=/usr/bin:/bin", "EMPTY=", "SPACED=a  b\nc", "BASH_FUNC_module%%=() {  echo $1\n}", "a.b-c=1", "1st=first", "-u=option",
		"IFS=x", "OPTIND=none", "PS4=+", "SHLVL=7", "PWD=/nowhere", "OLDPWD=/nowhere", "UID=5", "_=/bin/me", "SHELLOPTS=xtrace",
		"LD_LIBRARY_PATH=/nowhere", "GCONV_PATH=/nowhere",
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	c, err := Spec{}.Command(proc.Cmd{Path: "env", Args: []string{"-0"}, Env: env, ExtraFiles: []*os.File{w}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	want := append(env, "HOME="+Home())
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	files := proc.Cmd{Path: "/bin/ls", Args: []string{"/proc/self/fd"}, ExtraFiles: []*os.File{w}}
	outside, err := files.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c, err = (Spec{}).Command(files); err != nil {
		t.Fatal(err)
	}
	if out, err = c.Output(t.Context()); err != nil || !slices.Equal(out, outside) {
		t.Errorf("open: %q, %v; outside %q", out, err, outside)
	}
	if _, err := Tether(proc.Cmd{Path: "a=b", Env: env}); err == nil {
		t.Error("a program that env takes for a variable")
	}
}
