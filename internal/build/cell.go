package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/redact"
	"uenv-ci.dev/internal/sandbox"
)

// buildDir is the path of the build directory inside a sandbox. It is the same
// for every build, so that files that name it do not differ.
const buildDir = "/uenv-ci"

// cell is where the programs of one build run: a sandbox, or the bare machine.
type cell struct {
	Build  string // the build directory as programs see it
	host   string // the same directory on the host
	mount  string
	spec   *sandbox.Spec // nil without a sandbox; its Binds are made after those of the build directory
	env    []string
	files  foreign      // the build directory
	stored foreign      // the store
	logs   string       // directory on the host
	count  atomic.Int32 // commands so far
	cpu    atomic.Int64 // nanoseconds that they took
	redact *redact.Redactor
	guard  *guard
}

// step is one program that a cell runs.
type step struct {
	name    string // names the log file
	cmd     proc.Cmd
	network bool
	spack   bool              // it is Spack, so it may write to its environments
	watch   func(line string) // sees every line as it is written; may be nil
}

func newCell(o *Options, w *workspace) (*cell, error) {
	c := &cell{
		Build: buildDir, host: filepath.Join(w.Dir, "build"), mount: o.mount(),
		logs: filepath.Join(w.Dir, "logs"), redact: o.redact,
		guard: newGuard(w.Dir, o.Limits.deadline(time.Now())),
	}
	home := filepath.Join(w.Dir, "home")
	for _, dir := range []string{
		c.scratch(), c.store(), c.path("tmp"), c.path("cache"), c.path("user"), c.path(engineScope), c.logs, home,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := c.open(); err != nil {
		return nil, err
	}
	if o.NoSandbox {
		c.Build = c.host
		if err := w.linkMount(c.mount, c.store()); err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.env = o.environ("HOME="+home, "TMPDIR="+c.path("tmp"))
		return c, nil
	}
	c.spec = &sandbox.Spec{
		Flat: true,
		Home: home, Tmp: c.path("tmp"),
		Hide:  slices.Concat([]string{filepath.Dir(w.Dir)}, sandbox.CheckoutSecrets(o.Stack.Recipe.Dir), sandbox.RootOnly(), o.Hide),
		Binds: []sandbox.Bind{{Source: c.store(), Target: c.mount, Writable: true}},
	}
	c.env = o.environ("HOME=" + sandbox.Home())
	return c, nil
}

// open opens the directories in which programs of strangers write. Callers end it
// with close.
func (c *cell) open() (err error) {
	if c.files, err = openForeign(c.host); err != nil {
		return err
	}
	c.stored, err = openForeign(c.store())
	return err
}

// close closes what open has opened. A nil cell has nothing open.
func (c *cell) close() error {
	if c == nil {
		return nil
	}
	var err error
	for _, d := range []foreign{c.files, c.stored} {
		if d.Root != nil {
			err = errors.Join(err, d.Close())
		}
	}
	return err
}

// path returns a path of the host below the build directory.
func (c *cell) path(elem ...string) string {
	return filepath.Join(append([]string{c.host}, elem...)...)
}

// inside returns the same path as programs see it.
func (c *cell) inside(elem ...string) string {
	return filepath.Join(append([]string{c.Build}, elem...)...)
}

func (c *cell) store() string { return c.path("store") }

// used returns the time that the programs of the build took on all processors.
func (c *cell) used() time.Duration {
	if c == nil {
		return 0
	}
	return time.Duration(c.cpu.Load())
}

// onHost translates a path that a program named, which has to be below the build
// directory, the mount point or /tmp, else it is "".
func (c *cell) onHost(path string) string {
	if c.spec == nil {
		return path
	}
	// The mount point first: it may be below /tmp.
	for _, dir := range []struct{ inside, host string }{
		{c.mount, c.store()}, {c.Build, c.host}, {"/tmp", c.path("tmp")},
	} {
		if rest, ok := strings.CutPrefix(path, dir.inside+"/"); ok {
			return filepath.Join(dir.host, rest)
		}
	}
	return ""
}

// show makes a directory of the host visible at its own path, read-only, also
// where the sandbox would hide it.
func (c *cell) show(dir string) {
	if c.spec != nil {
		c.spec.Binds = append(c.spec.Binds, sandbox.Bind{Source: dir, Target: dir})
	}
}

// put makes a directory of the host appear below the build directory, read-only
// in a sandbox, and returns its path there: the same for every build.
func (c *cell) put(dir, name string) (string, error) {
	if dir == c.path(name) {
		return c.inside(name), nil // it is there already
	}
	if c.spec == nil {
		return c.inside(name), os.Symlink(dir, c.path(name))
	}
	c.spec.Binds = append(c.spec.Binds, sandbox.Bind{Source: dir, Target: c.inside(name)})
	return c.inside(name), os.MkdirAll(c.path(name), 0o755)
}

// attempts is how often a sandbox is tried whose host changes while it is made.
const attempts = 3

// run runs a step and keeps what it says in a log file. Its error, if the program
// ran and failed, is a *stepError.
func (c *cell) run(ctx context.Context, s step) (err error) {
	name := filepath.Join(c.logs, fmt.Sprintf("%02d-%s.log", c.count.Add(1), s.name))
	log, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	defer log.Close()
	out := &redact.Writer{Redactor: c.redact, Out: log, Line: s.watch}
	for range attempts {
		var cmd proc.Cmd
		if cmd, err = c.command(s, out); err != nil {
			return err
		}
		err = c.wait(ctx, cmd, out)
		exit, failed := errors.AsType[*proc.ExitError](err)
		if !failed {
			return err
		}
		err = &stepError{step: s.name, log: name, code: exit.Code}
		if c.spec == nil || !sandbox.HostChanged(exit.Code, tail(name, 1)) {
			break
		}
	}
	return err
}

// command returns the program of a step as it runs in the cell.
func (c *cell) command(s step, out io.Writer) (proc.Cmd, error) {
	cmd := s.cmd
	cmd.Stderr = out
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Env = append(c.env[:len(c.env):len(c.env)], cmd.Env...)
	if s.network {
		cmd.Env = append(cmd.Env, inherited(proxies)...)
	}
	if cmd.Dir == "" {
		cmd.Dir = c.Build
	}
	if c.spec == nil {
		return cmd, nil
	}
	spec := *c.spec
	spec.Network = s.network
	binds, err := c.buildBinds(s.spack)
	if err != nil {
		return proc.Cmd{}, err
	}
	spec.Binds = append(binds, spec.Binds...)
	return spec.Command(metered(cmd))
}

// wait runs a program under the eyes of the guard.
func (c *cell) wait(ctx context.Context, cmd proc.Cmd, out *redact.Writer) error {
	ctx, guarded, leave := c.guard.enter(ctx)
	defer leave()
	defer func() { c.cpu.Add(int64(readMeter(cmd))) }()
	if f := c.guard.trouble(time.Now()); f != nil {
		return f.fault()
	}
	p, err := cmd.Start(ctx)
	if err != nil {
		return err
	}
	c.guard.started(guarded, p.Pid())
	err = p.Wait()
	usage := p.Usage()
	c.cpu.Add(int64(usage.CPU))
	c.guard.note(Peak{Memory: usage.MaxRSS})
	if stopped, ok := errors.AsType[*Failure](context.Cause(ctx)); ok {
		why := *stopped // for each of several programs
		return why.fault()
	}
	if err := errors.Join(out.Err, out.Flush()); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	return err
}

// stepError tells that a program of a build failed.
type stepError struct {
	step string
	log  string // path on the host
	code int
}

func (e *stepError) Error() string { return fmt.Sprintf("%s exited with code %d", e.step, e.code) }

// errorLines is how much of a log an error shows.
const errorLines = 20

// tailBytes is how much of the end of a log is looked at.
const tailBytes = 8 << 20

// tail returns the last lines of a file, none if it cannot be read.
func tail(file string, n int) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := readTail(f, tailBytes)
	if err != nil {
		return nil
	}
	lines := strings.Split(strings.TrimRight(strings.ToValidUTF8(string(data), "?"), "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return nil
	}
	return lines[max(0, len(lines)-n):]
}

// readTail returns the last bytes of a regular file.
func readTail(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	if info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// sourceDateEpoch is what builds run with: not zero, since zip files, and so
// Python packages, begin in 1980.
const sourceDateEpoch = "315576060"

// variablePrefix marks variables of ours that a build gets without the prefix,
// as in the pipeline that this program replaces.
const variablePrefix = "UENV_CIBUILDV_"

// environ returns the environment of all programs of a build: nothing of our own
// but what was asked for.
func (o *Options) environ(more ...string) []string {
	env := append([]string{
		"PATH=/usr/bin:/bin", "USER=uenv-ci", "LOGNAME=uenv-ci", "LC_ALL=C.UTF-8", "TZ=UTC", "SOURCE_DATE_EPOCH=" + sourceDateEpoch,
		"UENV_MOUNT=" + o.mount(), "UENV_JOBS=" + strconv.Itoa(o.jobs()),
		"UENV_SYSTEM=" + o.System, "UENV_UARCH=" + o.UArch,
	}, more...)
	for _, v := range os.Environ() {
		if rest, ok := strings.CutPrefix(v, variablePrefix); ok && !strings.HasPrefix(rest, "=") {
			env = append(env, rest)
		}
	}
	return append(env, inherited(o.Env)...)
}

// proxies are the variables that programs with a network need on many sites.
var proxies = []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}

// inherited returns those of the named variables that we have ourselves.
func inherited(names []string) []string {
	var env []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
