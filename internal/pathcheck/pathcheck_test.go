package pathcheck

import "testing"

func TestMountPoint(t *testing.T) {
	for _, point := range []string{"/user-environment", "/user-tools", "/opt/env", "/tmp/a/env", "/dev/shm/env", "/usr/local/env", "/home/user/env", "/binary"} {
		if err := MountPoint(point); err != nil {
			t.Errorf("%s: %v", point, err)
		}
	}
	for _, point := range []string{
		"", "env", "./env", "/", "//", "/user-environment/", "/a/../b", "/a//b", "/a b", "/a,b", "/a:b", "/a\nb", "/tmp", "/home", "/home/user", "/root",
		"/etc", "/etc/env", "/usr/bin", "/dev/env", "/dev/shm", "/usr/local", "/proc/1", "/run",
	} {
		if MountPoint(point) == nil {
			t.Errorf("%q was let through", point)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{{"/a", "/a", true}, {"/a/b", "/a", true}, {"/ab", "/a", false}, {"/a", "/a/b", false}, {"/a", "/", true}, {"/a/b", "/a/", true}} {
		if Within(c.path, c.dir) != c.want {
			t.Errorf("%s in %s", c.path, c.dir)
		}
	}
}
