package build_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/stack"
)

func classOf(err error) string {
	if f, ok := errors.AsType[*build.Failure](err); ok {
		return f.Class
	}
	return ""
}

func TestDeadlineStopsBuild(t *testing.T) {
	needSandbox(t)
	for name, deadline := range map[string]time.Time{"over": time.Now().Add(-time.Hour), "soon": time.Now().Add(time.Second)} {
		_, err := build.Run(t.Context(), build.Options{
			Stack: stack.Input{Recipe: script(t, "sleep 1000\n")}, Root: buildRoot(t), Limits: build.Limits{Deadline: deadline},
		})
		if classOf(err) != "timeout" || fault.HintOf(err) == "" || fault.KindOf(err) == fault.Interrupted {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeepOnFailure(t *testing.T) {
	needSandbox(t)
	root := t.TempDir()
	fails := build.Options{
		Stack: stack.Input{Recipe: script(t, "touch $UENV_MOUNT/half; exit 1\n")}, Root: root, Limits: build.Limits{KeepOnFailure: time.Hour},
	}
	if _, err := build.Run(t.Context(), fails); err == nil {
		t.Fatal("it built")
	}
	fails.Limits.KeepOnFailure = 0
	if _, err := build.Run(t.Context(), fails); err == nil {
		t.Fatal("it built")
	}
	kept, _ := filepath.Glob(filepath.Join(root, "*", "*", "build", "store", "half"))
	if len(kept) != 1 {
		t.Errorf("kept: %q", kept)
	}
}

// tinyDir mounts a tmpfs of 1 MiB.
func tinyDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("only a user that may mount can test a full file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullFileSystem fills a tmpfs in several ways. Each is told for what it is,
// and nothing is left.
func TestFullFileSystem(t *testing.T) {
	needSandbox(t)
	dir := tinyDir(t)
	if _, err := build.Run(t.Context(), build.Options{Stack: stack.Input{Recipe: script(t, "exit 0\n")}, Root: dir}); err == nil || !strings.Contains(err.Error(), "MiB left") {
		t.Errorf("it began: %v", err)
	}
	for name, program := range map[string]string{
		"at once":   "dd if=/dev/zero of=$UENV_MOUNT/x bs=1M count=4\n",
		"by output": "yes\n",
		"and waits": "dd if=/dev/zero of=$UENV_MOUNT/x bs=64k count=14; dd if=/dev/zero of=$UENV_MOUNT/y bs=64k count=14 || sleep 1000\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build.Run(t.Context(), build.Options{Stack: stack.Input{Recipe: script(t, program)}, Root: dir, Size: 1})
			if classOf(err) != "disk-full" || fault.HintOf(err) == "" {
				t.Errorf("%v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
	data := strings.Repeat("x", 2<<20)
	r := script(t, "exit 0\n")
	write(t, filepath.Join(r.Dir, "big"), data, 0o644)
	if _, err := build.Run(t.Context(), build.Options{Stack: stack.Input{Recipe: r}, Root: dir, Size: 1}); classOf(err) != "disk-full" {
		t.Errorf("a recipe that is too large: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 1 {
		t.Errorf("left: %v", left)
	}
}

func TestEstimate(t *testing.T) {
	_, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "exit 0\n")}, Root: buildRoot(t), NoSandbox: true,
		Limits: build.Limits{Previous: &build.Report{Peak: build.Peak{Storage: 1 << 60}}},
	})
	if err == nil || !strings.Contains(err.Error(), "MiB left") {
		t.Errorf("%v", err)
	}
}

func TestPeaks(t *testing.T) {
	needSandbox(t)
	r, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "dd if=/dev/zero of=$UENV_MOUNT/x bs=1M count=3\n")}, Root: buildRoot(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if p := r.Report.Peak; p.Storage < 3<<20 || p.Memory < 100<<10 {
		t.Errorf("%+v", p)
	}
	if r.Report.Seconds <= 0 || r.Report.CPUSeconds <= 0 {
		t.Errorf("%+v", r.Report)
	}
}
