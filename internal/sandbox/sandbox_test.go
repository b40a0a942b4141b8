package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/testdirs"
)

func need(t *testing.T) {
	t.Helper()
	if err := Available(t.Context()); err != nil {
		t.Skipf("no sandbox here: %v", err)
	}
}

// shell runs a script in the sandbox and returns what it said and its exit code.
func shell(t *testing.T, s Spec, script string, env ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	c, err := s.Command(proc.Cmd{
		Path: "/bin/sh", Args: []string{"-c", script}, Stdout: &out, Stderr: &out,
		Env: append([]string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}, env...),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Run(t.Context())
	var exit *proc.ExitError
	if errors.As(err, &exit) {
		return out.String(), exit.Code
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), 0
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMountPointNeedNotExist(t *testing.T) {
	need(t)
	store := t.TempDir()
	for _, target := range []string{"/uenv-ci-no-such-directory", "/usr/share/uenv-ci-none/deeper/still", "/tmp/uenv-ci-none/x", "/home/uenv-ci-none"} {
		s := Spec{Binds: []Bind{{store, target, true}}}
		out, code := shell(t, s, "echo hello > "+target+"/file && ls -d /usr/share /usr/bin/env /etc/passwd")
		if code != 0 {
			t.Fatalf("%s: exit %d: %s", target, code, out)
		}
		if got, err := os.ReadFile(filepath.Join(store, "file")); err != nil || string(got) != "hello\n" {
			t.Errorf("%s: the store holds %q (%v)", target, got, err)
		}
		if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was made on the host: %v", target, err)
		}
		os.Remove(filepath.Join(store, "file"))
	}
}

func TestReadOnlyBind(t *testing.T) {
	need(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "kept")
	s := Spec{Binds: []Bind{{dir, "/image", false}}}
	out, code := shell(t, s, "cat /image/file; echo x > /image/file")
	if code == 0 || !strings.HasPrefix(out, "kept") {
		t.Errorf("exit %d: %s", code, out)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "file")); string(got) != "kept" {
		t.Errorf("the file became %q", got)
	}
}

func TestPrivateDirectories(t *testing.T) {
	need(t)
	home, tmp := t.TempDir(), t.TempDir()
	out, code := shell(t, Spec{Home: home, Tmp: tmp}, `
		echo h > "$HOME/h" && echo t > /tmp/t && echo s > /dev/shm/s && ls -A "$HOME" /tmp /dev/shm`)
	if code != 0 {
		t.Fatal(out)
	}
	for _, path := range []string{filepath.Join(home, "h"), filepath.Join(tmp, "t")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat("/dev/shm/s"); err == nil {
		t.Error("the host's /dev/shm was written to")
	}
	out, code = shell(t, Spec{}, `cd "$HOME" && ls -A . /tmp /dev/shm && touch new`)
	if code != 0 || strings.Contains(out, filepath.Base(tmp)) {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestNetwork(t *testing.T) {
	need(t)
	count := "grep -c : /proc/net/dev"
	off, _ := shell(t, Spec{}, count)
	on, _ := shell(t, Spec{Network: true}, count)
	host, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Skip("no /proc/net/dev")
	}
	if strings.TrimSpace(off) != "1" {
		t.Errorf("without network there are %s devices", off)
	}
	if want := fmt.Sprint(strings.Count(string(host), ":")); strings.TrimSpace(on) != want {
		t.Errorf("with network there are %s devices, the host has %s", on, want)
	}
}

// TestHostileHook tries what a malicious hook would try. Every line that it
// writes to the file is something that it got.
func TestHostileHook(t *testing.T) {
	need(t)
	base := testdirs.Visible(t)
	docker, other, recipe, store := filepath.Join(base, "docker"), filepath.Join(base, "builds/other"), filepath.Join(base, "recipe"), filepath.Join(base, "store")
	write(t, filepath.Join(docker, "config.json"), "canary")
	write(t, filepath.Join(other, "secret"), "canary")
	write(t, filepath.Join(recipe, "config.yaml"), "name: x\n")
	write(t, filepath.Join(base, "token"), "canary")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, _ := shell(t, Spec{}, "cat "+base+"/*/config.json "+base+"/token"); out != "canarycanary" {
		t.Fatalf("what is not hidden is not seen either, so the test shows nothing: %q", out)
	}
	t.Setenv("DOCKER_CONFIG", docker)
	t.Setenv("UENV_CI_TEST_SECRET", "canary")

	// An ordinary user may change what belongs to his own namespaces, root nothing.
	settings := ""
	if os.Getuid() == 0 {
		settings = "$(find /proc -maxdepth 4 -type f ! -path '/proc/[0-9]*' -perm /222)"
	}
	script := fmt.Sprintf(`
got() { echo "$1" >> /store/got; }
for dir in / /etc /usr %[1]s/recipe; do
	mount -o remount,rw,bind $dir 2>/dev/null && got "remount $dir"
	unshare -Urm mount -o remount,rw,bind $dir 2>/dev/null && got "remount $dir in a namespace"
	touch $dir/uenv-ci-hostile 2>/dev/null && got "write to $dir"
	unshare -Urm touch $dir/uenv-ci-hostile 2>/dev/null && got "write to $dir in a namespace"
done
echo changed >> %[1]s/recipe/config.yaml && got "write to the recipe"
tr '\0' '\n' < /proc/1/environ | grep canary && got "environment of process 1"
for p in /proc/[0-9]*; do
	tr '\0' '\n' < $p/environ | grep canary && got "environment of $p"
	[ "$(cat $p/comm)" = "%[2]s" ] && got "process $p"
done
cat %[1]s/docker/config.json "$DOCKER_CONFIG/config.json" && got "docker configuration"
cat %[1]s/builds/other/secret && got "other build"
cat %[1]s/token && got "token"
[ -z "$(find /home /root /run -type s -o -type f)" ] || got "homes or sockets"
[ -s /etc/shadow ] && cat /etc/shadow && got "shadow"
for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger %[3]s; do
	[ -w $f ] && (: >> $f) && got "write to $f"
done
[ "$(awk '/^Cap(Inh|Prm|Eff|Amb)/ {print $2}' /proc/self/status | sort -u)" = 0000000000000000 ] || got "capabilities"
grep -q 'NoNewPrivs:.*1' /proc/self/status || got "new privileges"
mknod /store/null c 1 3 && got "device"
exit 0
`, base, ownComm(t), settings)
	s := Spec{
		Binds: []Bind{{recipe, recipe, false}, {store, "/store", true}},
		Hide:  []string{filepath.Join(base, "builds"), filepath.Join(base, "token")},
	}
	out, code := shell(t, s, script, "DOCKER_CONFIG="+docker)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if got, err := os.ReadFile(filepath.Join(store, "got")); err == nil {
		t.Errorf("the hook got:\n%s", got)
	}
	if strings.Contains(out, "canary") {
		t.Errorf("a secret was shown:\n%s", out)
	}
	if got, _ := os.ReadFile(filepath.Join(recipe, "config.yaml")); string(got) != "name: x\n" {
		t.Errorf("the recipe became %q", got)
	}
}

// ownComm returns the name under which the kernel knows this process.
func ownComm(t *testing.T) string {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Skip(err)
	}
	return strings.TrimSpace(string(comm))
}

func TestTransparent(t *testing.T) {
	need(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "image")
	work := t.TempDir()
	s := Spec{Transparent: true, Binds: []Bind{{dir, "/uenv-ci-image", false}}}
	out, code := shell(t, s, "cat /uenv-ci-image/file && touch "+work+"/new && kill -0 "+fmt.Sprint(os.Getpid()))
	if code != 0 || out != "image" {
		t.Errorf("exit %d: %s", code, out)
	}
	if _, err := os.Stat(filepath.Join(work, "new")); err != nil {
		t.Error(err)
	}
	s.Binds[0].Target = filepath.Join(work, "not", "there")
	if _, err := s.Command(proc.Cmd{Path: "true"}); err == nil || !strings.Contains(err.Error(), work) {
		t.Errorf("a mount point below a writable directory: %v", err)
	}
}

func TestBadBinds(t *testing.T) {
	for _, b := range []Bind{{"relative", "/x", false}, {"/usr", "relative", false}, {"/usr", "/", false}, {"/usr", "/..", false}} {
		if _, err := (Spec{Binds: []Bind{b}}).layout(); err == nil {
			t.Errorf("%+v was accepted", b)
		}
	}
}

func TestOutermost(t *testing.T) {
	got := outermost([]string{"/a", "/a", "/a/b", "/ab", "/c/d"})
	if want := []string{"/a", "/ab", "/c/d"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got, exists, err := resolve(dir + "/link/link/a/b")
	if err != nil || exists || got != dir+"/a/b" {
		t.Errorf("got %q %v %v", got, exists, err)
	}
	if got, exists, err := resolve(dir + "/link"); err != nil || !exists || got != dir {
		t.Errorf("got %q %v %v", got, exists, err)
	}
}

// TestCancel shows that nothing in a sandbox outlives its context, not even
// what left the process group.
func TestCancel(t *testing.T) {
	need(t)
	dir := t.TempDir()
	s := Spec{Binds: []Bind{{dir, "/out", true}}}
	c, err := s.Command(proc.Cmd{
		Path: "/bin/sh", Env: []string{"PATH=/usr/bin:/bin"}, Grace: 100 * time.Millisecond,
		Args: []string{"-c", `trap '' TERM; setsid sh -c 'while :; do date > /out/beat; sleep 0.05; done' & while :; do sleep 1; done`},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	beat := filepath.Join(dir, "beat")
	waitFor(t, func() bool { _, err := os.Stat(beat); return err == nil })
	cancel()
	if err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	waitFor(t, func() bool {
		os.Remove(beat)
		time.Sleep(300 * time.Millisecond)
		_, err := os.Stat(beat)
		return err != nil
	})
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("waited too long")
}

// TestOrdinaryUser repeats the tests as an ordinary user where they run as root.
func TestOrdinaryUser(t *testing.T) {
	setpriv, ok := proc.Look("setpriv")
	if os.Getuid() != 0 || !ok {
		t.Skip("needs root and setpriv to become another user")
	}
	need(t)
	dir := testdirs.Visible(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o777)); err != nil {
		t.Fatal(err)
	}
	test := filepath.Join(dir, "sandbox.test")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(test, self, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := proc.Cmd{
		Path: setpriv, Dir: tmp,
		Args: []string{"--reuid=65534", "--regid=65534", "--clear-groups", test, "-test.v"},
		Env:  []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + tmp, "HOME=/nonexistent"},
	}.Output(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "no sandbox here") {
		t.Skipf("an ordinary user cannot make a sandbox here:\n%s", out)
	}
}

// Spack puts where the C library is into hashes: it has to be where it is in the
// sandboxes of upstream's builds.
func TestFlat(t *testing.T) {
	need(t)
	links := flatLinks(t)
	for _, link := range links {
		out, code := shell(t, Spec{Flat: true}, "cd -P "+link+" && pwd && ls | head -n 1 && ! touch x")
		if code != 0 || !strings.HasPrefix(out, link+"\n") {
			t.Errorf("%s: %d, %s", link, code, out)
		}
		if out, _ := shell(t, Spec{}, "cd -P "+link+" && pwd"); !strings.HasPrefix(out, "/usr/") {
			t.Errorf("without Flat %s is %s", link, out)
		}
		// What is hidden, or lies over it, has no second way.
		real, err := filepath.EvalSymlinks(link)
		if err != nil {
			t.Fatal(err)
		}
		below := filepath.Join(real, "uenv-ci-none")
		out, _ = shell(t, Spec{Flat: true, Binds: []Bind{{Source: t.TempDir(), Target: below}}}, "cd -P "+link+" && pwd")
		if out != real+"\n" {
			t.Errorf("with something at %s, %s is %s", below, link, out)
		}
	}
	entries, err := os.ReadDir("/usr/lib")
	if err != nil {
		t.Fatal(err)
	}
	hidden := filepath.Join("/usr/lib", entries[slices.IndexFunc(entries, os.DirEntry.IsDir)].Name())
	if out, _ := shell(t, Spec{Flat: true, Hide: []string{hidden}}, "ls -A "+hidden+" /lib/"+filepath.Base(hidden)+"/ | grep -v :"); strings.TrimSpace(out) != "" {
		t.Errorf("%s is not hidden: %s", hidden, out)
	}
}

// flatLinks returns the links in / that Flat is for.
func flatLinks(t *testing.T) []string {
	t.Helper()
	var links []string
	for _, link := range []string{"/lib", "/lib64"} {
		if to, err := filepath.EvalSymlinks(link); err == nil && strings.HasPrefix(to, "/usr/lib") {
			links = append(links, link)
		}
	}
	if len(links) == 0 {
		t.Skip("/lib is no link to /usr/lib here")
	}
	return links
}
