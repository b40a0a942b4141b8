// Package proc runs other programs. It is the only package that does, so that
// every child has an explicit environment, dies with us and leaves no
// descendants behind when it is cancelled.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	defaultGrace = 5 * time.Second
	outputLimit  = 64 << 20
	stderrTail   = 4 << 10
)

// Cmd is a program to run.
type Cmd struct {
	Path string   // a path, or a name to be found on our PATH
	Args []string // without the program's own name
	Dir  string   // "" is our working directory
	Env  []string // the whole environment: nil is an empty one

	Stdin          io.Reader
	Stdout, Stderr io.Writer
	ExtraFiles     []*os.File // become file descriptors 3, 4, …

	// Grace is the time between SIGTERM and SIGKILL when the context ends, and that
	// of background processes to finish their output; 0 means five seconds.
	Grace time.Duration

	// Foreground keeps the child in our process group, as a program that talks
	// to the terminal needs. Otherwise it gets a group of its own, which is
	// ended as a whole when the context ends.
	Foreground bool

	// Outlives lets the child live on when we die. It is for programs that wait
	// for just that, and end then.
	Outlives bool

	// Tether gives the child, as the file descriptor after ExtraFiles, a pipe to
	// write to that breaks when we die. It is for what comes about only through
	// programs that may miss our death.
	Tether bool
}

// ExitError tells that a program ran and did not exit with 0.
type ExitError struct {
	Name   string         // base name of the program
	Code   int            // exit code; 128+n if signal n ended it
	Signal syscall.Signal // 0 if it exited by itself
	Stderr string         // the end of what it wrote to stderr, if we kept it
}

// Error tells how the program ended and the end of what it said.
func (e *ExitError) Error() string {
	text := fmt.Sprintf("%s exited with code %d", e.Name, e.Code)
	if e.Signal != 0 {
		text = fmt.Sprintf("%s was ended by signal %d (%s)", e.Name, int(e.Signal), e.Signal)
	}
	if tail := strings.TrimSpace(e.Stderr); tail != "" {
		text += ": " + tail
	}
	return text
}

// Process is a started program.
type Process struct {
	cmd  *exec.Cmd
	ctx  context.Context
	name string
	tail *tailWriter

	tether io.Closer // our end of it; nil without one
}

// Start starts the program. The caller must call Wait.
func (c Cmd) Start(ctx context.Context) (*Process, error) {
	name := filepath.Base(c.Path)
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = c.Dir, c.Stdin, c.Stdout, c.ExtraFiles
	cmd.Env = c.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	p := &Process{cmd: cmd, ctx: ctx, name: name}
	cmd.Stderr = c.Stderr
	if c.Stderr == nil {
		p.tail = &tailWriter{limit: stderrTail}
		cmd.Stderr = p.tail
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !c.Foreground, Pdeathsig: syscall.SIGKILL}
	if c.Outlives {
		cmd.SysProcAttr.Pdeathsig = 0
	}
	cmd.Cancel = func() error { return p.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = c.Grace
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = defaultGrace
	}
	if err := p.start(c.Tether); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *Process) start(tether bool) error {
	if !tether {
		return p.cmd.Start()
	}
	here, there, err := os.Pipe()
	if err != nil {
		return err
	}
	defer there.Close()
	p.cmd.ExtraFiles = append(slices.Clip(p.cmd.ExtraFiles), there)
	if err := p.cmd.Start(); err != nil {
		here.Close()
		return err
	}
	p.tether = here
	return nil
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program and, where it has a process group of its
// own, to all of the group.
func (p *Process) Signal(sig syscall.Signal) error {
	target := p.Pid()
	if p.cmd.SysProcAttr.Setpgid {
		target = -target
	}
	if err := syscall.Kill(target, sig); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Wait waits for the program's end. What is left of its process group is then
// ended too; before, it has the time of Grace to finish what it writes to the program's
// output. The error is nil, an *ExitError, or the context's error.
func (p *Process) Wait() error {
	err := p.cmd.Wait()
	if p.tether != nil {
		p.tether.Close()
	}
	if p.cmd.SysProcAttr.Setpgid {
		syscall.Kill(-p.Pid(), syscall.SIGKILL)
	}
	if p.ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", p.name, context.Cause(p.ctx))
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		p.tellCut()
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return fmt.Errorf("run %s: %w", p.name, err)
		}
		return nil
	}
	e := &ExitError{Name: p.name, Code: exit.ExitCode()}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.Signal = status.Signal()
		e.Code = 128 + int(e.Signal)
	}
	if p.tail != nil {
		e.Stderr = p.tail.String()
	}
	return e
}

// tellCut tells, where messages of a program that succeeded are read, that what it left
// in the background was still writing.
func (p *Process) tellCut() {
	if p.tail == nil && p.cmd.Stderr != nil {
		fmt.Fprintf(p.cmd.Stderr, "\n%s has ended; what it left in the background had its output open still, and was ended too\n", p.name)
	}
}

// Run starts the program and waits for its end.
func (c Cmd) Run(ctx context.Context) error {
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Output runs the program and returns what it wrote to stdout, at most 64 MiB.
func (c Cmd) Output(ctx context.Context) ([]byte, error) {
	out := &limitedBuffer{limit: outputLimit}
	c.Stdout = out
	if err := c.Run(ctx); err != nil {
		return out.Bytes(), err
	}
	return out.Bytes(), nil
}

// Look finds a program on our PATH.
func Look(name string) (string, bool) {
	path, err := exec.LookPath(name)
	return path, err == nil
}

// Replace becomes another program: it returns only if that fails.
func Replace(path string, argv, env []string) error {
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, argv, env))
}

// tailWriter keeps the last bytes written to it.
type tailWriter struct {
	limit int
	data  []byte
}

func (w *tailWriter) Write(b []byte) (int, error) {
	w.data = append(w.data, b...)
	if over := len(w.data) - w.limit; over > 0 {
		w.data = append(w.data[:0], w.data[over:]...)
	}
	return len(b), nil
}

func (w *tailWriter) String() string { return string(w.data) }

// limitedBuffer refuses to grow over its limit.
type limitedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(data []byte) (int, error) {
	if b.Len()+len(data) > b.limit {
		return 0, fmt.Errorf("more than %d MiB of output", b.limit>>20)
	}
	return b.Buffer.Write(data)
}
