package proc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sh(script string) Cmd {
	return Cmd{Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

func TestOutput(t *testing.T) {
	out, err := sh("echo hello").Output(context.Background())
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("got %q, %v", out, err)
	}
}

func TestEnvironmentIsExplicit(t *testing.T) {
	t.Setenv("UENV_CI_CANARY", "leaked")
	out, err := Cmd{Path: "/usr/bin/env"}.Output(context.Background())
	if err != nil || len(out) != 0 {
		t.Fatalf("got %q, %v", out, err)
	}
}

func TestExitErrors(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		signal syscall.Signal
		text   string
	}{
		{"echo oops >&2; exit 3", 3, 0, "sh exited with code 3: oops"},
		{"kill -9 $$", 137, syscall.SIGKILL, "sh was ended by signal 9 (killed)"},
	} {
		var exit *ExitError
		err := sh(c.script).Run(context.Background())
		if !errors.As(err, &exit) || exit.Code != c.code || exit.Signal != c.signal || err.Error() != c.text {
			t.Errorf("%s: got %#v (%v)", c.script, exit, err)
		}
	}
}

func TestMissingProgram(t *testing.T) {
	err := Cmd{Path: "no-such-program-here"}.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "no-such-program-here") {
		t.Errorf("got %v", err)
	}
	if _, ok := Look("no-such-program-here"); ok {
		t.Error("found")
	}
}

// alive tells whether a process exists and is not a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func readPid(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		data, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && strings.HasSuffix(string(data), "\n") {
			return pid
		}
	}
	t.Fatal("the child did not start")
	return 0
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func TestCancelEndsTheWholeGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(context.Background())
	p, err := sh("sleep 600 & echo $! > " + file + "; wait").Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	grandchild := readPid(t, file)
	cancel()
	if err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	waitGone(t, grandchild)
}

func TestCancelKillsWhatIgnoresSIGTERM(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(context.Background())
	c := sh("trap '' TERM; echo $$ > " + file + "; while :; do sleep 0.05; done")
	c.Grace = 50 * time.Millisecond
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pid := readPid(t, file)
	cancel()
	if err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	waitGone(t, pid)
}

// A process in the background that has the output still does not make a success fail.
func TestBackgroundJobsWithTheOutput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	var told strings.Builder
	c := sh("echo done; sleep 600 & echo $! > " + file)
	c.Grace, c.Stderr = 50*time.Millisecond, &told
	out, err := c.Output(t.Context())
	if err != nil || string(out) != "done\n" || !strings.Contains(told.String(), "sh has ended") {
		t.Errorf("got %q, %v, told %q", out, err, told.String())
	}
	waitGone(t, readPid(t, file))
	c = sh("(sleep 0.1; echo late) & echo done") // it is waited for
	if out, err := c.Output(t.Context()); err != nil || string(out) != "done\nlate\n" {
		t.Errorf("got %q, %v", out, err)
	}
	c = sh("sleep 600 & exit 3")
	c.Grace = 50 * time.Millisecond
	if exit := new(ExitError); !errors.As(c.Run(t.Context()), &exit) || exit.Code != 3 {
		t.Errorf("got %+v", exit)
	}
}

func TestAnEndedProgramLeavesNoBackgroundJobs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	if err := sh("sleep 600 >/dev/null 2>&1 & echo $! > " + file).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	waitGone(t, readPid(t, file))
}
