package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
)

// heldSandbox is a program in the place of bubblewrap. In the sandbox of which
// %[1]s is an argument bubblewrap reads a pipe to its end while it makes the file
// system, which is before it asks to be killed with its parent.
const heldSandbox = `#!/bin/sh
case " $* " in
*%[1]s*)
	echo $$ > %[2]s/pid
	exec %[3]s --file 9 /held "$@" 9< %[2]s/hold
esac
exec %[3]s "$@"
`

// TestKillWhileASandboxIsMade kills the program between bubblewrap's start and that
// of the program in the sandbox, which must not run then.
func TestKillWhileASandboxIsMade(t *testing.T) {
	bwrap, ok := proc.Look("bwrap")
	if err := sandbox.Available(t.Context()); err != nil || !ok {
		t.Skipf("no sandbox here: %v", err)
	}
	const program = "#!/bin/sh\necho > ran\necho 1..1\necho ok 1\n"
	for name, c := range map[string]struct {
		program string // of the sandbox that is held
		args    []string
	}{
		"build":             {"/recipe/build", []string{"build", "--recipe", "recipe", "hello/1.0@demo%amd64", "--out", "i.squashfs", "--build-root", "../root"}},
		"test":              {"/extra/test", []string{"test", "./image.squashfs", "--system", "demo", "--method", "unpack"}},
		"test --no-sandbox": {"/extra/test", []string{"test", "./image.squashfs", "--system", "demo", "--method", "unpack", "--no-sandbox"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newKilledBuild(t)
			b.write("work/store/meta/env.json", string(readFile(t, "testdata/fixtures/store/meta/env.json")))
			b.write("work/store/meta/extra/test", program)
			b.write("work/recipe/config.yaml", "builder: script\nname: hello\n")
			b.write("work/recipe/build", "#!/bin/sh\necho > \"$UENV_MOUNT/ran\"\n")
			if said, err := b.program("pack", "store", "--out", "image.squashfs").output(); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			if said, err := b.program(c.args...).output(); err != nil {
				t.Fatalf("not killed: %v\n%s", err, said)
			}
			b.write("bin/bwrap", fmt.Sprintf(heldSandbox, c.program, b.base, bwrap))
			b.env = append(b.env, "PATH="+filepath.Join(b.base, "bin")+":"+os.Getenv("PATH"))
			b.killHeld(c.args)
			b.waitAlone()
			b.nothingRan()
		})
	}
}

func (b *killedBuild) write(name, text string) {
	b.t.Helper()
	name = filepath.Join(b.base, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// killHeld kills the program while bubblewrap is held, and then lets that go on.
func (b *killedBuild) killHeld(args []string) {
	b.t.Helper()
	fifo := filepath.Join(b.base, "hold")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		b.t.Fatal(err)
	}
	hold, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer hold.Close()
	if _, err := hold.WriteString("x"); err != nil {
		b.t.Fatal(err)
	}
	p := b.program(args...)
	p.cmd.Stdout, p.cmd.Stderr = io.Discard, io.Discard
	running, err := p.cmd.Start(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	b.waitUntil("bubblewrap reads", func() bool { return unread(hold) == 0 })
	pid, err := strconv.Atoi(strings.TrimSpace(string(readFile(b.t, filepath.Join(b.base, "pid")))))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := running.Signal(syscall.SIGKILL); err != nil {
		b.t.Error(err)
	}
	var exit *proc.ExitError
	if err := running.Wait(); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		b.t.Errorf("it ended by itself: %v", err)
	}
	b.waitUntil("bubblewrap is dead", func() bool { return !livesStill(pid) })
	if len(b.processes()) == 0 {
		b.t.Error("nothing is held")
	}
}

// unread returns how many bytes a pipe holds.
func unread(f *os.File) int {
	n := 0
	raw, err := f.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}

// livesStill tells whether a process is there and no zombie.
func livesStill(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(status), ") Z ")
}

func (b *killedBuild) waitUntil(what string, done func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("it does not come to: %s", what)
		}
	}
}

// nothingRan looks for what a program in the sandbox would have written.
func (b *killedBuild) nothingRan() {
	b.t.Helper()
	err := filepath.WalkDir(b.base, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "ran" {
			b.t.Errorf("it ran on, and wrote %s", path)
		}
		return err
	})
	if err != nil {
		b.t.Error(err)
	}
}
