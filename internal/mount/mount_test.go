package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/squashfs"
)

// testPoint is a mount point that exists on no host.
const testPoint = "/uenv-ci-test-mount"

// testImage packs a small tree and returns the image's path.
func testImage(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	bin := filepath.Join(root, "bin")
	script := "#!/bin/sh\necho \"hello from $0 $*\"\n"
	err := errors.Join(
		os.MkdirAll(bin, 0o755),
		os.WriteFile(filepath.Join(bin, "hello"), []byte(script), 0o755),
		os.WriteFile(filepath.Join(root, "data"), []byte("content"), 0o644),
		os.Chmod(bin, 0o555))
	t.Cleanup(func() { os.Chmod(bin, 0o755) })
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store.squashfs")
	if _, err := squashfs.Pack(t.Context(), root, path, squashfs.WriteOptions{Time: time.Unix(1700000000, 0)}); err != nil {
		t.Fatal(err)
	}
	return path
}

// need skips the test where the machine lacks what a method is made of.
func need(t *testing.T, method Method) {
	t.Helper()
	program := map[Method]string{Helper: "squashfs-mount", Kernel: "unshare", FUSE: "squashfuse", Own: "unshare"}[method]
	device := map[Method]string{Kernel: "/dev/loop-control", FUSE: "/dev/fuse", Own: "/dev/fuse"}[method]
	if program != "" {
		if _, ok := proc.Look(program); !ok {
			t.Skipf("%s is not installed", program)
		}
	}
	if method == Kernel && os.Geteuid() != 0 {
		t.Skip("only root mounts by the kernel")
	}
	if device != "" {
		file, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			t.Skip(err)
		}
		file.Close()
	}
}

// mountBy mounts by one method. The helper needs a directory of the host; with
// point "" the other methods get one that exists on no host.
func mountBy(t *testing.T, method Method, point string) *Mount {
	t.Helper()
	need(t, method)
	if point == "" {
		point = hostlessPoint(t, method)
	}
	m, err := At(t.Context(), Request{Image: testImage(t), MountPoint: point, Methods: []Method{method}, Server: testServer(t), WorkDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func hostlessPoint(t *testing.T, method Method) string {
	t.Helper()
	if method == Helper {
		return t.TempDir()
	}
	if !bubblewrap(t.Context()) {
		t.Skip("bubblewrap does not work here: apt-get install bubblewrap")
	}
	return testPoint
}

func output(t *testing.T, m *Mount, c proc.Cmd) string {
	t.Helper()
	if c.Env == nil {
		c.Env = toolEnv()
	}
	wrapped, err := m.Command(c)
	if err != nil {
		t.Fatal(err)
	}
	out, err := wrapped.Output(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", c.Path, err)
	}
	return strings.TrimSpace(string(out))
}

// eachMethod runs a test by each method that the machine has.
func eachMethod(t *testing.T, test func(t *testing.T, m *Mount)) {
	for _, method := range Chain() {
		t.Run(string(method), func(t *testing.T) { test(t, mountBy(t, method, "")) })
	}
}

func TestContentAppears(t *testing.T) {
	eachMethod(t, func(t *testing.T, m *Mount) {
		if got := output(t, m, proc.Cmd{Path: "cat", Args: []string{m.point + "/data"}}); got != "content" {
			t.Errorf("data: %q", got)
		}
		env := []string{"PATH=" + m.point + "/bin:/usr/bin:/bin"}
		if got := output(t, m, proc.Cmd{Path: "hello", Args: []string{"a b", "--c"}, Env: env}); got != "hello from "+m.point+"/bin/hello a b --c" {
			t.Errorf("program of the image: %q", got)
		}
		if entries, _ := os.ReadDir(m.point); len(entries) > 0 {
			t.Errorf("the host sees the content: %v", entries)
		}
		if m.Method() != m.Attempts()[0].Method || m.Attempts()[0].Reason != "" {
			t.Errorf("attempts: %+v", m.Attempts())
		}
	})
}

func TestTheRestIsTheHost(t *testing.T) {
	dir := t.TempDir()
	eachMethod(t, func(t *testing.T, m *Mount) {
		output(t, m, proc.Cmd{Path: "sh", Args: []string{"-c", "echo written >file"}, Dir: dir})
		if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "written\n" {
			t.Errorf("written file: %q, %v", got, err)
		}
		here, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		if got := output(t, m, proc.Cmd{Path: "pwd", Args: []string{"-P"}}); got != here {
			t.Errorf("directory %q, want %q", got, here)
		}
		if got := output(t, m, proc.Cmd{Path: "id", Args: []string{"-u"}}); got != strconv.Itoa(os.Geteuid()) {
			t.Errorf("user %q", got)
		}
		env := append(toolEnv(), "LD_LIBRARY_PATH=/x", "WITH=a b")
		got := output(t, m, proc.Cmd{Path: "env", Env: env})
		for _, want := range []string{"LD_LIBRARY_PATH=/x", "WITH=a b", "UENV_MOUNT_LIST=" + m.image + ":" + m.point} {
			if !slices.Contains(strings.Split(got, "\n"), want) {
				t.Errorf("no %s in %q", want, got)
			}
		}
	})
}

func TestReadOnly(t *testing.T) {
	eachMethod(t, func(t *testing.T, m *Mount) {
		c, err := m.Command(proc.Cmd{Path: "sh", Args: []string{"-c", "echo x >" + m.point + "/data"}, Env: toolEnv()})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(t.Context()); err == nil {
			t.Error("the content could be changed")
		}
		if got := output(t, m, proc.Cmd{Path: "cat", Args: []string{m.point + "/data"}}); got != "content" {
			t.Errorf("data: %q", got)
		}
	})
}

func TestExitCode(t *testing.T) {
	eachMethod(t, func(t *testing.T, m *Mount) {
		c, err := m.Command(proc.Cmd{Path: "sh", Args: []string{"-c", "exit 7"}, Env: toolEnv()})
		if err != nil {
			t.Fatal(err)
		}
		var exit *proc.ExitError
		if err := c.Run(t.Context()); !errors.As(err, &exit) || exit.Code != 7 {
			t.Errorf("error %v", err)
		}
		if c, err = m.Command(proc.Cmd{Path: "no-such-program", Env: []string{"PATH=/usr/bin:/bin"}}); err != nil {
			t.Fatal(err)
		}
		if err := c.Run(t.Context()); !errors.As(err, &exit) || exit.Code != 127 {
			t.Errorf("error %v", err)
		}
	})
}

func TestInSandbox(t *testing.T) {
	if err := sandbox.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	eachMethod(t, func(t *testing.T, m *Mount) {
		c, err := m.Sandboxed(sandbox.Spec{}, proc.Cmd{Path: "cat", Args: []string{m.point + "/data"}, Env: toolEnv()})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := c.Output(t.Context()); err != nil || string(out) != "content" {
			t.Errorf("data: %q, %v", out, err)
		}
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	for _, method := range Chain() {
		t.Run(string(method), func(t *testing.T) {
			m := mountBy(t, method, "")
			work := t.TempDir()
			if m.work != nil {
				work = filepath.Dir(m.work.Path())
			}
			if err := errors.Join(m.Close(), m.Close()); err != nil {
				t.Error(err)
			}
			if left := mountDirs(t, filepath.Join(work, "../../..")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if c, err := m.Command(proc.Cmd{Path: "cat", Args: []string{m.point + "/data"}, Env: toolEnv()}); err == nil && m.method != Helper && c.Run(t.Context()) == nil {
				t.Error("the content is still there")
			}
		})
	}
}

func mountDirs(t *testing.T, work string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(work, "uenv-ci-*", "scratch", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestChainReports has the chain tell why it did not use what comes first.
func TestChainReports(t *testing.T) {
	var told []string
	m, err := At(t.Context(), Request{
		Image: testImage(t), MountPoint: hostlessPoint(t, Unpack), WorkDir: t.TempDir(),
		Events: func(e event.Event) { told = append(told, e.Message) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	attempts := m.Attempts()
	t.Logf("this machine uses %s: %+v", m.Method(), attempts)
	for i, a := range attempts {
		if a.Method != Chain()[i] || (a.Reason == "") != (i == len(attempts)-1) {
			t.Errorf("attempt %d: %+v", i, a)
		}
	}
	if !strings.Contains(told[len(told)-1], string(m.Method())) {
		t.Errorf("told: %q", told)
	}
}

func TestNoMethod(t *testing.T) {
	_, err := At(t.Context(), Request{Image: testImage(t), MountPoint: testPoint, Methods: []Method{Helper, "magic"}, WorkDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "magic") || fault.HintOf(err) == "" {
		t.Errorf("error %v", err)
	}
}

func TestDigestIsVerifiedFirst(t *testing.T) {
	image := testImage(t)
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Image: image, MountPoint: filepath.Join(t.TempDir(), "env"), Digest: digest.FromBytes(data), Methods: []Method{Unpack}, WorkDir: t.TempDir()}
	m, err := At(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(image, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := At(t.Context(), r); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), string(r.Digest)) {
		t.Errorf("a flipped bit: %v", err)
	}
}

func TestBadImage(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("junk"), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]fault.Kind{filepath.Join(dir, "none"): fault.NotFound, dir: fault.Invalid} {
		if _, err := At(t.Context(), Request{Image: path, MountPoint: testPoint, WorkDir: dir}); fault.KindOf(err) != kind {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := At(t.Context(), Request{Image: junk, MountPoint: testPoint, WorkDir: dir}); err == nil {
		t.Error("junk was mounted")
	}
	if left := mountDirs(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	work := t.TempDir()
	if _, err := At(ctx, Request{Image: testImage(t), MountPoint: testPoint, WorkDir: work}); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("error %v", err)
	}
	if left := mountDirs(t, work); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestBelowTemporaryDirectory is how the demo mounts: a missing directory into
// whose parent we may write appears on the host and goes with the mount.
func TestBelowTemporaryDirectory(t *testing.T) {
	for _, method := range Chain() {
		if method == Helper {
			continue // it needs the directory to exist
		}
		t.Run(string(method), func(t *testing.T) {
			point := filepath.Join(t.TempDir(), "a", "env")
			m := mountBy(t, method, point)
			if got := output(t, m, proc.Cmd{Path: "cat", Args: []string{point + "/data"}}); got != "content" {
				t.Errorf("data: %q", got)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(filepath.Dir(point)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// TestWithoutBubblewrap shows the content at the mount point itself.
func TestWithoutBubblewrap(t *testing.T) {
	tools := t.TempDir()
	for _, name := range []string{"sh", "ls", "cat", "env", "mount", "sleep", "unshare", "nsenter", "squashfuse", "unsquashfs"} {
		if path, ok := proc.Look(name); ok {
			if err := os.Symlink(path, filepath.Join(tools, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", tools)
	for _, method := range []Method{Kernel, FUSE, Own, Unpack} {
		t.Run(string(method), func(t *testing.T) {
			point := filepath.Join(t.TempDir(), "env")
			m := mountBy(t, method, point)
			if m.boxed {
				t.Fatal("bubblewrap was found")
			}
			if got := output(t, m, proc.Cmd{Path: "cat", Args: []string{"env/data"}, Dir: filepath.Dir(point)}); got != "content" {
				t.Errorf("data: %q", got)
			}
			if got := output(t, m, proc.Cmd{Path: "hello", Env: []string{"PATH=" + point + "/bin:" + os.Getenv("PATH")}}); got != "hello from "+point+"/bin/hello" {
				t.Errorf("program of the image: %q", got)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(point); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// TestKilled kills a process that has a mount: the kernel takes the mount, the
// next run the rest.
func TestKilled(t *testing.T) {
	if work := os.Getenv("UENV_CI_TEST_KILLED"); work != "" {
		holdMount(t, work)
		return
	}
	image := testImage(t)
	for _, method := range []Method{Kernel, FUSE, Own, Unpack} {
		t.Run(string(method), func(t *testing.T) {
			need(t, method)
			point := hostlessPoint(t, method)
			work := t.TempDir()
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			child, err := proc.Cmd{
				Path: os.Args[0], Args: []string{"-test.run=^TestKilled$", "-test.v"}, Stdout: write,
				Env: append(os.Environ(), "UENV_CI_TEST_KILLED="+work, "METHOD="+string(method), "IMAGE="+image),
			}.Start(t.Context())
			write.Close()
			if err != nil {
				t.Fatal(err)
			}
			pid := awaitHolder(t, read)
			child.Signal(syscall.SIGKILL)
			child.Wait()
			if left := mountDirs(t, work); len(left) == 0 {
				t.Error("nothing was left to sweep")
			}
			for range 500 { // the kernel ends the holder
				if pid == 0 || syscall.Kill(pid, 0) != nil || zombie(pid) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if pid != 0 && syscall.Kill(pid, 0) == nil && !zombie(pid) {
				t.Errorf("process %d still holds the mount", pid)
			}
			m, err := At(t.Context(), Request{Image: image, MountPoint: point, Methods: []Method{method}, Server: testServer(t), WorkDir: work})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if left := mountDirs(t, work); len(left) > 0 {
				t.Errorf("not swept: %q", left)
			}
		})
	}
}

// holdMount is the child of TestKilled.
func holdMount(t *testing.T, work string) {
	m, err := At(context.Background(), Request{Image: os.Getenv("IMAGE"), MountPoint: testPoint, Methods: []Method{Method(os.Getenv("METHOD"))}, Server: testServer(t), WorkDir: work})
	if err != nil {
		t.Fatal(err)
	}
	holding := 0
	if m.holder != nil {
		holding = m.holder.process.Pid()
	}
	fmt.Printf("\nholder %d\n", holding)
	time.Sleep(time.Hour)
}

func awaitHolder(t *testing.T, r *os.File) (pid int) {
	t.Helper()
	buffer := make([]byte, 1<<16)
	var text string
	for {
		n, err := r.Read(buffer)
		text += string(buffer[:n])
		if _, after, ok := strings.Cut(text, "\nholder "); ok && strings.Contains(after, "\n") {
			if _, err := fmt.Sscan(after, &pid); err != nil {
				t.Fatal(err)
			}
			return pid
		}
		if err != nil {
			t.Fatalf("the child said %q: %v", text, err)
		}
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestTheImagesEnvironmentStaysInside has the loader trace what it loads: with an
// image's environment it does so in no program of ours.
func TestTheImagesEnvironmentStaysInside(t *testing.T) {
	eachMethod(t, func(t *testing.T, m *Mount) {
		trace := filepath.Join(t.TempDir(), "trace")
		env := append(toolEnv(), "LD_DEBUG=files", "LD_DEBUG_OUTPUT="+trace)
		if got := output(t, m, proc.Cmd{Path: "sh", Args: []string{"-c", "echo $LD_DEBUG"}, Env: env}); got != "files" {
			t.Errorf("the program's LD_DEBUG is %q", got)
		}
		files, err := filepath.Glob(trace + ".*")
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Skip("this system's loader does not trace")
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"bwrap", "nsenter"} {
				if strings.Contains(string(text), "initialize program: "+name) || strings.Contains(string(text), "/"+name+"\n") {
					t.Errorf("%s was started with the image's environment", name)
				}
			}
		}
	})
}
