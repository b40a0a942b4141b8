package build_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/stack"
)

// The child of TestKill: it builds the recipe in one directory below another and
// says what happens, until it is killed.
const (
	childRecipe  = "UENV_CI_TEST_CHILD_RECIPE"
	childRoot    = "UENV_CI_TEST_CHILD_ROOT"
	childMount   = "UENV_CI_TEST_CHILD_MOUNT"
	childSandbox = "UENV_CI_TEST_CHILD_SANDBOX"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childRecipe); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

func child(dir string) {
	ctx := context.Background()
	r, err := recipe.Load(ctx, dir)
	if err == nil {
		_, err = build.Run(ctx, build.Options{
			Stack: stack.Input{Recipe: r, Mount: os.Getenv(childMount)},
			Root:  os.Getenv(childRoot), NoSandbox: os.Getenv(childSandbox) == "no",
			Events: func(e event.Event) { fmt.Printf("%s %s %s\n", e.Kind, e.Stage, e.Message) },
		})
	}
	fmt.Println("returned", err)
	time.Sleep(time.Hour)
}

// TestKill kills a build at several points. The next one must find and remove
// what is left, and no process may outlive its build.
func TestKill(t *testing.T) {
	needSandbox(t)
	const work = "echo working; mkdir $UENV_MOUNT/bin; chmod 500 $UENV_MOUNT/bin; sleep 0.3; echo late; touch $UENV_MOUNT/x\n"
	marker := fmt.Sprintf("1000.%d", os.Getpid())
	recipes := map[string]*recipe.Recipe{
		"yes": script(t, "setsid sleep "+marker+" &\n"+work),
		"no":  script(t, work),
	}
	for _, point := range []string{
		"started prepare", "done prepare", "started build", "info build working", "info build late", "done build",
		"started metadata", "done metadata", "started finish", "done finish", "returned <nil>",
	} {
		for sandbox, r := range recipes {
			t.Run(strings.ReplaceAll(point, " ", "-")+"/sandbox="+sandbox, func(t *testing.T) {
				root, mount := t.TempDir(), filepath.Join(t.TempDir(), "mount")
				killAt(t, point, r.Dir, root, mount, sandbox)
				waitGone(t, marker)
				afterKill(t, r, root, mount)
			})
		}
	}
}

// killAt runs a child until it says a line, and kills it.
func killAt(t *testing.T, point, recipeDir, root, mount, sandbox string) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p, err := proc.Cmd{
		Path: os.Args[0], Stdout: in, Stderr: os.Stderr,
		Env: append(os.Environ(), childRecipe+"="+recipeDir, childRoot+"="+root, childMount+"="+mount, childSandbox+"="+sandbox),
	}.Start(t.Context())
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "returned") && lines.Text() != point {
			t.Errorf("the child came to: %s", lines.Text())
			break
		}
		if strings.TrimSpace(lines.Text()) == point {
			break
		}
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	var exit *proc.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Errorf("the child ended by itself: %v", err)
	}
}

// afterKill builds in the same root and looks at what is left there.
func afterKill(t *testing.T, r *recipe.Recipe, root, mount string) {
	t.Helper()
	jobs, err := filepath.Glob(filepath.Join(root, "*", "*.lock"))
	if err != nil || len(jobs) != 1 {
		t.Fatalf("the killed build left %q (%v)", jobs, err)
	}
	var events log
	next, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "exit 0\n"), Mount: mount}, Root: root, NoSandbox: true, Events: events.sink(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(events.lines, "\n"), "dead build tool-") {
		t.Errorf("nothing was said of the dead build: %q", events.lines)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q (%v)", left, err)
	}
	if _, err := os.Lstat(mount); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount point is still there: %v", err)
	}
}

// waitGone waits until no process has an argument.
func waitGone(t *testing.T, argument string) {
	t.Helper()
	for range 100 {
		if !running(argument) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("a process with %s is still running", argument)
}

func running(argument string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, _ := os.ReadFile(file)
		if bytes.Contains(data, []byte("sleep\x00"+argument)) {
			return true
		}
	}
	return false
}
