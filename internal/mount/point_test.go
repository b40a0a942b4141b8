package mount

import (
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/fault"
)

func TestMountPoints(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", filepath.Join(dir, "home", "me"))
	for _, sub := range []string{"home/me/env", "scratch"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{
		"/user-environment", "/user-tools", "/opt/x", "/usr/local/x", "/dev/shm/x", "/var/tmp/x",
		filepath.Join(dir, "scratch"), filepath.Join(dir, "none", "env"), filepath.Join(dir, "home/me/env"),
		link(filepath.Join(dir, "scratch"), "link"),
	} {
		if err := checkPoint(good, good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "relative", "/", "/usr", "/usr/", "/usr/bin", "/usr/local", "/etc", "/etc/ssh", "/bin", "/lib", "/lib64",
		"/home", "/home/anyone", "/root", "/dev", "/dev/fd", "/dev/shm", "/proc", "/proc/1", "/sys", "/var", "/tmp", "/opt", "/run",
		"/a/../etc", "/a//b", "/a:b", "/a,b", "/a b", "/a\nb",
		filepath.Join(dir, "home/me"), filepath.Join(dir, "home"), file,
		link("/etc", "to-etc"), filepath.Join(link("/usr", "to-usr"), "bin"), link("/none-at-all", "dangling"),
	} {
		if err := checkPoint(bad, ""); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := checkPoint("/user-environment", "/user-tools"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("not the image's own: %v", err)
	}
}
