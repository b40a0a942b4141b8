package mount

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/proc"
)

func TestSession(t *testing.T) {
	m := &Mount{image: "/r/store.squashfs", point: "/user-environment"}
	got := m.Session("prgenv-gnu", []string{"default", "modules"})
	want := []string{
		"UENV_MOUNT_LIST=/r/store.squashfs:/user-environment",
		"UENV_VIEW=/user-environment:prgenv-gnu:default,/user-environment:prgenv-gnu:modules",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := m.Session("x", nil)[1]; got != "UENV_VIEW=" {
		t.Errorf("without views: %q", got)
	}
	env := map[string]string{"UENV_MOUNT_LIST": "x"}
	getenv := func(name string) string { return env[name] }
	if err := CheckSession(getenv); err != nil {
		t.Errorf("half a session: %v", err)
	}
	env["UENV_VIEW"] = "y"
	if err := CheckSession(getenv); err == nil {
		t.Error("sessions nest")
	}
}

func TestHelperForwardsStrippedVariables(t *testing.T) {
	got := forward([]string{"LD_LIBRARY_PATH=/a:/b", "HOME=/h", "TMPDIR=/t"})
	want := []string{"LD_LIBRARY_PATH=/a:/b", "HOME=/h", "TMPDIR=/t", "SQFSMNT_FWD_LD_LIBRARY_PATH=/a:/b", "SQFSMNT_FWD_TMPDIR=/t"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestClientArguments(t *testing.T) {
	d := digest.FromString("x")
	for name, c := range map[string]struct {
		major int
		run   Run
		want  string
	}{
		"record": {9, Run{Repo: "/r", Digest: d, Views: []string{"a", "b"}, Command: []string{"ls", "-l"}},
			"--repo=/r run --view=a,b " + d.Encoded() + "@* -- ls -l"},
		"no view in 9":  {9, Run{File: "/f.squashfs", MountPoint: "/m", Command: []string{"x"}}, "run /f.squashfs:/m -- x"},
		"no view in 10": {10, Run{File: "/f.squashfs", Command: []string{"x"}}, "run --no-default-view /f.squashfs -- x"},
	} {
		if got := strings.Join(Client{Major: c.major}.Args(c.run), " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	dir := t.TempDir()
	for _, bad := range []Run{{Repo: "/a+b"}, {File: "/a b"}, {MountPoint: filepath.Join(dir, "none")}, {Wanted: filepath.Join(dir, "none")}} {
		if err := (Client{}).Check(bad); err == nil {
			t.Errorf("%+v: accepted", bad)
		}
	}
}

// TestClientRuns hands a run over to the real client, where it is installed.
func TestClientRuns(t *testing.T) {
	client, ok := FindClient(t.Context())
	if !ok {
		t.Skip("the uenv client and squashfs-mount are not installed")
	}
	point := t.TempDir()
	run := Run{File: testImage(t), MountPoint: point, Command: []string{"cat", point + "/data"}}
	if err := client.Check(run); err != nil {
		t.Skip(err)
	}
	out, err := proc.Cmd{Path: client.Path, Args: client.Args(run), Env: append(toolEnv(), "HOME="+os.Getenv("HOME"))}.Output(t.Context())
	if err != nil || string(out) != "content" {
		t.Errorf("%q, %v", out, err)
	}
}
