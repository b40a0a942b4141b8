package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registrytest"
	"uenv-ci.dev/internal/sandbox"
)

// programVariable makes the test's own program uenv-ci.
const programVariable = "UENV_CI_E2E_PROGRAM"

// killPoint is where a build is killed: some time after it said something, or when
// it asks the registry for something for the nth time.
type killPoint struct {
	said    string // pattern
	after   time.Duration
	request string // pattern for method and path; "" for none
	nth     int
}

var killPoints = map[string]killPoint{
	"before concretize":       {said: `INF spack: done`},
	"in concretize":           {said: `INF cache: done`, after: 300 * time.Millisecond},
	"begin of install":        {said: `INF concretize hello: done`},
	"in install, a package":   {said: `INF install hello: gcc-runtime`},
	"in install, the other":   {said: `INF install hello: hello-uenv`},
	"begin of the views":      {said: `INF install hello: done`},
	"in the views":            {said: `INF install hello: done`, after: 200 * time.Millisecond},
	"metadata and finish":     {said: `INF views: done`},
	"begin of pack":           {said: `INF finish: done`},
	"in pack":                 {said: `INF pack: `, after: 30 * time.Millisecond},
	"begin of push":           {said: `INF publish: build/`},
	"in push, a blob begins":  {request: `^POST .*/blobs/uploads/`, nth: 1},
	"in push, a blob ends":    {request: `^PUT .*/blobs/uploads/`, nth: 2},
	"in push, the manifest":   {request: `^PUT .*/manifests/`, nth: 1},
	"in push, what goes with": {request: `^PUT .*/manifests/`, nth: 2},
}

// TestKillBuild kills builds of a real Spack. Nothing of them may go on, the same
// build must work then, and nothing may be left after it.
func TestKillBuild(t *testing.T) {
	if os.Getenv("UENV_CI_SPACK") == "" {
		t.Skip("UENV_CI_SPACK names no Spack 0.23 checkout: see docs/spack.md")
	}
	if err := sandbox.Available(t.Context()); err != nil {
		t.Skipf("no sandbox here: %v", err)
	}
	for name, point := range killPoints {
		t.Run(name, func(t *testing.T) {
			b := newKilledBuild(t)
			mounts := b.mounts()
			b.kill(point)
			b.waitAlone()
			if now := b.mounts(); !slices.Equal(now, mounts) {
				t.Errorf("mounts are left: %q", now)
			}
			said, err := b.program(b.build...).output()
			if err != nil {
				t.Fatalf("the next build: %v\n%s", err, said)
			}
			if !strings.Contains(said, "removed leftovers") && point.request == "" && point.said != `INF publish: build/` {
				t.Errorf("nothing was said of the dead build:\n%s", said)
			}
			if said, err := b.program("verify", "image.squashfs").output(); err != nil {
				t.Errorf("the image: %v\n%s", err, said)
			}
			if said, err := b.program("pull", "build::hello-spack/1.0:1@demo%amd64").output(); err != nil {
				t.Errorf("pull it: %v\n%s", err, said)
			}
			b.nothingLeft()
		})
	}
}

// killedBuild is a build that is killed, with all that it uses below one directory.
type killedBuild struct {
	t     *testing.T
	base  string // in memory
	build []string
	mu    sync.Mutex
	point killPoint
	due   chan struct{}
	count int
	env   []string
}

func newKilledBuild(t *testing.T) *killedBuild {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "uenv-ci-kill-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	project, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"root", "tmp", "home", "work"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b := &killedBuild{t: t, base: base}
	address := registrytest.Serve(t, registrytest.Handler(registrytest.InProcess[0]), b.watch)
	b.build = []string{
		"build", "--recipe", filepath.Join(project, "recipes/hello-spack/1.0"), "--cluster", filepath.Join(project, "clusters/debian12"),
		"hello-spack/1.0:1@demo%amd64", "--push", "--out", "image.squashfs", "--offline", "--build-root", filepath.Join(base, "root"),
	}
	b.env = []string{
		programVariable + "=1", "HOME=" + filepath.Join(base, "home"), "TMPDIR=" + filepath.Join(base, "tmp"), "UENV_CI_REGISTRY=" + address,
		"UENV_CI_REPO=" + filepath.Join(base, "repo"), "PATH=" + os.Getenv("PATH"), "USER=tester",
	}
	for _, name := range passed {
		if value, ok := os.LookupEnv(name); ok {
			b.env = append(b.env, name+"="+value)
		}
	}
	return b
}

// watch notices when the registry is asked for what the point names.
func (b *killedBuild) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		if b.due != nil && b.point.request != "" && regexp.MustCompile(b.point.request).MatchString(r.Method+" "+r.URL.Path) {
			if b.count++; b.count == b.point.nth {
				close(b.due)
			}
		}
		b.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// invocation is uenv-ci with arguments.
type invocation struct {
	t   *testing.T
	cmd proc.Cmd
}

func (b *killedBuild) program(args ...string) invocation {
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return invocation{b.t, proc.Cmd{Path: self, Args: args, Env: b.env, Dir: filepath.Join(b.base, "work")}}
}

func (p invocation) output() (string, error) {
	var out bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = &out, &out
	err := p.cmd.Run(p.t.Context())
	return out.String(), err
}

// kill runs the build up to a point and kills it, and nothing else.
func (b *killedBuild) kill(point killPoint) {
	b.t.Helper()
	due := make(chan struct{})
	b.mu.Lock()
	b.point, b.due = point, due
	b.mu.Unlock()
	out, in, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	p := b.program(b.build...)
	p.cmd.Stdout, p.cmd.Stderr = io.Discard, in
	running, err := p.cmd.Start(b.t.Context())
	in.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	said := make(chan bool, 1)
	go func() { said <- saysSoon(out, point.said) }()
	select {
	case <-due:
	case ok := <-said:
		if point.request == "" && !ok {
			b.t.Errorf("it did not say %q", point.said)
		} else if point.request != "" {
			b.t.Errorf("it did not ask for %q", point.request)
		}
	}
	time.Sleep(point.after)
	if err := running.Signal(syscall.SIGKILL); err != nil {
		b.t.Error(err)
	}
	var exit *proc.ExitError
	if err := running.Wait(); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		b.t.Errorf("it ended by itself: %v", err)
	}
	b.mu.Lock()
	b.due = nil
	b.mu.Unlock()
}

// saysSoon reads lines until one matches, and on to the end if none is waited for.
func saysSoon(out io.Reader, pattern string) bool {
	wanted := regexp.MustCompile(pattern)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if pattern != "" && wanted.MatchString(lines.Text()) {
			return true
		}
	}
	return false
}

// waitAlone waits until no process has to do with the build: by its arguments, its
// working directory or what is mounted where it is.
func (b *killedBuild) waitAlone() {
	b.t.Helper()
	var left []string
	for range 250 {
		if left = b.processes(); len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.t.Errorf("processes are left: %q", left)
}

func (b *killedBuild) processes() []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	name := filepath.Base(b.base)
	for _, dir := range dirs {
		arguments, _ := os.ReadFile(dir + "/cmdline")
		mounts, _ := os.ReadFile(dir + "/mountinfo")
		cwd, _ := os.Readlink(dir + "/cwd")
		if strings.Contains(string(arguments)+string(mounts)+cwd, name) {
			found = append(found, filepath.Base(dir)+" "+strings.ReplaceAll(string(arguments), "\x00", " "))
		}
	}
	return found
}

// mounts returns what the build can have mounted for the whole machine to see: at its
// mount point, below its directory, or something of that elsewhere. Others may mount
// and unmount meanwhile.
func (b *killedBuild) mounts() []string {
	var own []string
	for line := range strings.Lines(string(readFile(b.t, "/proc/self/mountinfo"))) {
		fields := strings.Fields(line)
		const at = 4 // proc(5)
		if strings.Contains(line, filepath.Base(b.base)) || len(fields) > at && within(fields[at], "/user-environment", "/uenv-ci") {
			own = append(own, line)
		}
	}
	return own
}

func within(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// nothingLeft looks for what the builds have left besides their results.
func (b *killedBuild) nothingLeft() {
	b.t.Helper()
	results := map[string]bool{"work/image.squashfs": true, "work/build-report.json": true}
	for _, top := range []string{"root", "tmp", "work"} {
		err := filepath.WalkDir(filepath.Join(b.base, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(b.base, path)
			parents := regexp.MustCompile(`^(root|tmp|work|(root|tmp)/uenv-ci-\d+|tmp/uenv-ci-\d+/scratch(/lock)?)$`)
			if !results[name] && !parents.MatchString(name) {
				b.t.Errorf("left: %s", name)
			}
			return nil
		})
		if err != nil {
			b.t.Error(err)
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
