package mount

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/scratch"
)

const (
	mountOptions = "ro,nosuid,nodev"
	readyPoll    = 5 * time.Millisecond
	readyTimeout = 20 * time.Second
)

// holder is a process that keeps a mount alive in a mount namespace of its own.
// The kernel ends the process with us, even on SIGKILL, and the namespace with
// its last process: a mount cannot be left behind.
type holder struct {
	process  *proc.Process
	userNS   bool // the namespace belongs to a user namespace, as without root
	finished chan struct{}
	err      error // valid once finished is closed
}

// startHeld mounts by the kernel, or by a program that serves the image.
func (m *Mount) startHeld(ctx context.Context, r Request) error {
	c, err := holderCommand(m.method, r.Server)
	if err != nil {
		return err
	}
	if err := m.place(ctx, r); err != nil {
		return err
	}
	c.Args = append(c.Args, m.image, m.source)
	if m.holder, err = startHolder(ctx, c); err != nil {
		return err
	}
	m.enter = m.holder.enter
	return m.holder.ready(ctx, m.source)
}

// holderCommand returns the command that mounts the image and the directory that
// are appended to its arguments, and stays.
func holderCommand(method Method, server []string) (proc.Cmd, error) {
	root := os.Geteuid() == 0
	if method == Kernel && !root {
		return proc.Cmd{}, errors.New("needs root")
	}
	for _, tool := range []string{"unshare", "nsenter"} {
		if _, ok := proc.Look(tool); !ok {
			return proc.Cmd{}, fmt.Errorf("%s is not installed", tool)
		}
	}
	args := []string{"--mount", "--propagation", "slave"}
	if !root {
		args = append(args, "--user", "--map-current-user", "--keep-caps")
	}
	args = append(args, "--")
	switch method {
	case Kernel:
		const script = `mount -t squashfs -o loop,` + mountOptions + ` -- "$1" "$2" && exec sleep infinity`
		args = append(args, "sh", "-c", script, "sh")
	case FUSE:
		program, err := fuseProgram()
		if err != nil {
			return proc.Cmd{}, err
		}
		args = append(args, program, "-f", "-o", mountOptions)
	case Own:
		if len(server) == 0 {
			return proc.Cmd{}, errors.New("there is no program for it")
		}
		args = append(args, server...)
	}
	return proc.Cmd{Path: "unshare", Args: args, Env: toolEnv()}, nil
}

// fuseProgram prefers the variant on FUSE's low-level interface, which serves
// several requests at once.
func fuseProgram() (string, error) {
	for _, name := range []string{"squashfuse_ll", "squashfuse"} {
		if path, ok := proc.Look(name); ok {
			return path, nil
		}
	}
	return "", errors.New("not installed")
}

func startHolder(ctx context.Context, c proc.Cmd) (*holder, error) {
	process, err := c.Start(ctx)
	if err != nil {
		return nil, err
	}
	h := &holder{process: process, userNS: slices.Contains(c.Args, "--user"), finished: make(chan struct{})}
	go func() {
		h.err = process.Wait()
		close(h.finished)
	}()
	return h, nil
}

func (h *holder) stop() {
	h.process.Signal(syscall.SIGKILL)
	<-h.finished
}

// ready waits until the mount is there.
func (h *holder) ready(ctx context.Context, dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	deadline := time.After(readyTimeout)
	for {
		select {
		case <-h.finished:
			if h.err == nil {
				return errors.New("it ended without a message")
			}
			return h.err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline:
			return fmt.Errorf("no mount appeared within %v", readyTimeout)
		case <-time.After(readyPoll):
		}
		if mounted(h.process.Pid(), dir) {
			return nil
		}
	}
}

// enter returns the command that runs c in the holder's namespace.
func (h *holder) enter(c proc.Cmd) proc.Cmd {
	args := []string{"--target", strconv.Itoa(h.process.Pid()), "--mount"}
	if h.userNS {
		args = append(args, "--user", "--preserve-credentials")
	}
	c.Args = slices.Concat(args, []string{"--", c.Path}, c.Args)
	c.Path, c.Dir = "nsenter", ""
	return c
}

// mounted tells whether something is mounted on dir as a process sees it.
func mounted(pid int, dir string) bool {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return false
	}
	defer file.Close()
	want := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(dir)
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		if fields := strings.Fields(scanner.Text()); len(fields) > 4 && fields[4] == want {
			return true
		}
	}
	return false
}

// place decides where the content goes: to a private directory which the sandbox
// binds to the mount point, or without bubblewrap to the mount point itself.
func (m *Mount) place(ctx context.Context, r Request) error {
	var err error
	if m.work, err = scratch.New(r.WorkDir, r.Events); err != nil {
		return err
	}
	m.boxed = bubblewrap(ctx)
	if m.boxed {
		m.source = m.work.Path()
		return makePoint(m.work, m.point, false)
	}
	m.source = m.point
	return makePoint(m.work, m.point, true)
}

// bubblewrap tells whether the sandbox that shows the content works here.
func bubblewrap(ctx context.Context) bool {
	c, err := sandbox.Spec{Transparent: true}.Command(proc.Cmd{Path: "true", Env: toolEnv(), Dir: "/"})
	return err == nil && c.Run(ctx) == nil
}
