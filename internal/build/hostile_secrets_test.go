package build_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/testdirs"
)

// TestRelativeCredentials names credentials as one does in their directory.
func TestRelativeCredentials(t *testing.T) {
	needSandbox(t)
	base := testdirs.Visible(t)
	for _, name := range []string{"token", "docker/config.json", "kerberos/tkt"} {
		write(t, filepath.Join(base, name), "canary", 0o644)
	}
	write(t, filepath.Join(base, "control"), "seen", 0o644)
	t.Chdir(base)
	t.Setenv("DOCKER_CONFIG", "docker")
	t.Setenv("KRB5CCNAME", "DIR:"+filepath.Join(base, "kerberos"))
	r := mustBuild(t, build.Options{Root: buildRoot(t), Hide: []string{"token"}, Stack: stack.Input{Recipe: script(t,
		"cd '"+base+"'; cat control token docker/config.json kerberos/tkt >> $UENV_MOUNT/got || :\n")}})
	if what := got(t, r); what != "seen" {
		t.Errorf("the program saw %q", what)
	}
}

// TestSigningKeysAreHidden has a program look for the private keys of a mirror file: in
// a file of its own, and in the mirror file itself.
func TestSigningKeysAreHidden(t *testing.T) {
	needSandbox(t)
	base := testdirs.Visible(t)
	const key = "-----BEGIN PGP PRIVATE KEY BLOCK-----\ncanary\n"
	inline := base64.StdEncoding.EncodeToString([]byte(key))
	write(t, filepath.Join(base, "control"), "seen", 0o644)
	write(t, filepath.Join(base, "key.asc"), key, 0o644)
	for given, looked := range map[string]string{"key.asc": "key.asc", inline: "mirrors.yaml"} {
		mirrors := filepath.Join(base, "mirrors.yaml")
		write(t, mirrors, "buildcache:\n  url: file:///nonexistent\n  private_key: "+given+"\n", 0o644)
		m, err := site.LoadMirrors(mirrors, 2, "/user-environment")
		if err != nil {
			t.Fatal(err)
		}
		r := mustBuild(t, build.Options{Root: buildRoot(t), Stack: stack.Input{Mirrors: m, Recipe: script(t,
			"cd '"+base+"'; cat control "+looked+" >> $UENV_MOUNT/got || :\n")}})
		if what := got(t, r); what != "seen" {
			t.Errorf("%s: the program saw %q", looked, what)
		}
	}
}

// TestSettingsOfRoot has a build by root look for what is for root only. It writes
// to the machine's own directories, so only who asks for it gets it.
func TestSettingsOfRoot(t *testing.T) {
	needSandbox(t)
	if os.Getenv("UENV_CI_HOST_TESTS") == "" {
		t.Skip("puts files into /etc, /opt, /srv and /var: set UENV_CI_HOST_TESTS=1 on a machine where that does not matter")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, place := range []string{"/etc", "/opt", "/srv", "/var"} {
		dir, err := os.MkdirTemp(place, "test-")
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "service.conf"), "canary", 0o600)
		write(t, filepath.Join(dir, "control"), "seen", 0o644)
		r := mustBuild(t, build.Options{Root: buildRoot(t), Stack: stack.Input{Recipe: script(t,
			"cat '"+dir+"'/* >> $UENV_MOUNT/got || :\n")}})
		if what := got(t, r); !strings.Contains(what, "seen") || strings.Contains(what, "canary") {
			t.Errorf("below %s the program saw %q", place, what)
		}
	}
}
