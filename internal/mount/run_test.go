package mount

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"uenv-ci.dev/internal/proc"
)

// start runs a script and waits until it says that it is ready.
func start(t *testing.T, m *Mount, script string, foreground bool, signals <-chan os.Signal) <-chan error {
	t.Helper()
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- m.Run(context.Background(), proc.Cmd{
			Path: "sh", Args: []string{"-c", script}, Env: toolEnv(), Stdout: write, Foreground: foreground,
		}, signals)
		write.Close()
	}()
	if line, err := bufio.NewReader(read).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("the script said %q: %v", line, err)
	}
	go io.Copy(io.Discard, read)
	return ended
}

// TestSignalsReachTheCommand has a command that traps a signal end as it likes.
func TestSignalsReachTheCommand(t *testing.T) {
	eachMethod(t, func(t *testing.T, m *Mount) {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			if signal.Ignored(s) {
				continue // as under nohup: a shell cannot trap it
			}
			signals := make(chan os.Signal, 1)
			ended := start(t, m, `trap 'exit 3' TERM INT HUP; echo ready; while :; do sleep 0.05; done`, false, signals)
			signals <- s
			var exit *proc.ExitError
			if err := <-ended; !errors.As(err, &exit) || exit.Code != 3 {
				t.Errorf("%v: %v", s, err)
			}
		}
	})
}

// TestKeysOfATerminal sends what Ctrl-C is to a whole process group. The test runs
// itself in a group of its own for that.
func TestKeysOfATerminal(t *testing.T) {
	if os.Getenv("UENV_CI_TEST_KEYS") == "" {
		c := proc.Cmd{Path: os.Args[0], Args: []string{"-test.run=^TestKeysOfATerminal$", "-test.v"}, Env: append(os.Environ(), "UENV_CI_TEST_KEYS=1")}
		if out, err := c.Output(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := (proc.Cmd{Path: "env", Args: []string{restoreKeys, "true"}, Env: toolEnv()}).Run(t.Context()); err != nil {
		t.Skip("env(1) knows no signals: coreutils 8.31 or later is needed")
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT)
	defer signal.Stop(signals)
	eachMethod(t, func(t *testing.T, m *Mount) {
		ended := start(t, m, `n=0; trap 'n=$((n + 1)); [ $n = 2 ] && exit 4; echo again' INT; echo ready; while :; do sleep 0.05; done`, true, signals)
		for {
			if err := syscall.Kill(0, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				var exit *proc.ExitError
				if !errors.As(err, &exit) || exit.Code != 4 {
					t.Errorf("got %v", err)
				}
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
}
