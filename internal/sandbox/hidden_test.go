package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/testdirs"
)

// TestRelativePathsAreHidden names credentials as a user in their directory does.
func TestRelativePathsAreHidden(t *testing.T) {
	need(t)
	base := testdirs.Visible(t)
	for _, name := range []string{"token", "docker/config.json", "ccache/tkt", "collection/tktabc", "kube1", "kube2"} {
		write(t, filepath.Join(base, name), "canary")
	}
	write(t, filepath.Join(base, "control"), "seen")
	t.Chdir(base)
	for name, value := range map[string]string{
		"DOCKER_CONFIG": "docker", "KRB5CCNAME": "DIR:" + base + "/ccache", "KRB5_KTNAME": "DIR::" + base + "/collection/tktabc",
		"KUBECONFIG": base + "/kube1:kube2",
	} {
		t.Setenv(name, value)
	}
	out, _ := shell(t, Spec{Hide: []string{"token"}}, "cd "+base+" && cat control && find . -type f -exec cat {} +")
	if !strings.HasPrefix(out, "seen") {
		t.Fatalf("what is not hidden is not seen either: %s", out)
	}
	if strings.Contains(out, "canary") {
		t.Errorf("a credential was shown: %s", out)
	}
}

// TestHomeOfTheAccountIsHidden has homes below neither /home nor what HOME names, as
// on clusters.
func TestHomeOfTheAccountIsHidden(t *testing.T) {
	home := testdirs.Visible(t)
	t.Setenv("HOME", t.TempDir())
	if paths, err := hidden(nil, home); err != nil || !slices.Contains(paths, home) {
		t.Errorf("%q, %v", paths, err)
	}
	for _, odd := range []string{"/", filepath.Join(t.TempDir(), "none"), ""} {
		if paths, err := hidden(nil, odd); err != nil || slices.Contains(paths, odd) {
			t.Errorf("home %q: %q, %v", odd, paths, err)
		}
	}
}

func TestWhatCannotBeHiddenIsAnError(t *testing.T) {
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if _, err := hidden([]string{loop}, ""); err == nil || !strings.Contains(err.Error(), loop) {
		t.Errorf("a link to itself: %v", err)
	}
	if os.Getuid() != 0 {
		closed := filepath.Join(filepath.Dir(loop), "closed")
		if err := os.Mkdir(closed, 0); err != nil {
			t.Fatal(err)
		}
		t.Setenv("SSH_AUTH_SOCK", filepath.Join(closed, "agent"))
		if _, err := hidden(nil, ""); err != nil {
			t.Errorf("what this user cannot reach: %v", err)
		}
		if _, err := hidden([]string{filepath.Join(closed, "token")}, ""); err == nil {
			t.Error("a path that was asked for and cannot be found is not hidden")
		}
	}
	if _, err := hidden([]string{filepath.Join(filepath.Dir(loop), "none")}, ""); err != nil {
		t.Errorf("what does not exist: %v", err)
	}
}

// TestRootOnly hides from root's sandboxes what others cannot read outside.
func TestRootOnly(t *testing.T) {
	if os.Getuid() != 0 {
		if got := RootOnly(); got != nil {
			t.Errorf("for an ordinary user: %q", got)
		}
		t.Skip("needs root")
	}
	base := testdirs.Visible(t)
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	modes := map[string]os.FileMode{
		"slurm/slurmdbd.conf": 0o600, "slurm/slurm.conf": 0o644, "group": 0o640, "closed": 0, "private/deep/file": 0o644, "others": 0o600,
	}
	for name, mode := range modes {
		write(t, filepath.Join(base, name), "text of "+name+"\n")
		if err := os.Chmod(filepath.Join(base, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(base, "private"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(base, "others"), 4711, 4711); err != nil {
		t.Skip(err)
	}
	found := rootOnly([]string{base}, []int{0})
	slices.Sort(found)
	var want []string
	for _, name := range []string{"closed", "group", "private", "slurm/slurmdbd.conf"} {
		want = append(want, filepath.Join(base, name))
	}
	if !slices.Equal(found, want) {
		t.Errorf("hidden: %q", found)
	}
	need(t)
	out, _ := shell(t, Spec{Hide: found}, "cd "+base+" && cat slurm/* group closed private/deep/file")
	if strings.Count(out, "text of") != 1 || !strings.Contains(out, "text of slurm/slurm.conf") {
		t.Errorf("seen:\n%s", out)
	}
}

// TestRootOnlyManyFiles hides a directory as a whole rather than a thousand files.
func TestRootOnlyManyFiles(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	base := t.TempDir()
	for i := range maxMasked + 1 {
		file := filepath.Join(base, "spool", strings.Repeat("x", i+1))
		write(t, file, "x")
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := rootOnly([]string{base}, nil), []string{filepath.Join(base, "spool")}; !slices.Equal(got, want) {
		t.Errorf("hidden: %q", got)
	}
}

// TestHostChanged removes what a sandbox hides after its command was made.
func TestHostChanged(t *testing.T) {
	need(t)
	dir := testdirs.Visible(t)
	for _, name := range []string{"file", "below/file"} {
		file := filepath.Join(dir, name)
		write(t, file, "x")
		c, err := Spec{Hide: []string{file}}.Command(proc.Cmd{Path: "/bin/true"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, strings.Split(name, "/")[0])); err != nil {
			t.Fatal(err)
		}
		var exit *proc.ExitError
		if err := c.Run(t.Context()); !errors.As(err, &exit) || !HostChanged(exit.Code, strings.Split(exit.Stderr, "\n")) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if HostChanged(1, []string{"bwrap: execvp no: No such file or directory"}) || HostChanged(2, []string{"bwrap: Can't create file at /x"}) {
		t.Error("another error was taken for a changed host")
	}
}
