// Package mount makes the content of an image appear at a path for the programs
// that it wraps, and for nobody else: read-only, in a private mount namespace,
// with nothing left behind on any exit.
package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/scratch"
)

const stage = "mount"

// Method is a way to make an image's content appear.
type Method string

// The methods, in the order in which they are tried.
const (
	Helper Method = "squashfs-mount" // the uenv client's setuid program
	Kernel Method = "kernel"         // a loop mount; root only
	FUSE   Method = "squashfuse"     // the image served by an ordinary program
	Own    Method = "fuse"           // the image served by this program
	Unpack Method = "unpack"         // a copy of the content
)

// ParseMethod reads a method's name.
func ParseMethod(name string) (Method, error) {
	if m := Method(name); slices.Contains(Chain(), m) {
		return m, nil
	}
	if name == "helper" {
		return Helper, nil
	}
	return "", fault.New(fault.Usage, "there is no mount method %q: it is one of helper, kernel, squashfuse, fuse and unpack", name)
}

// Chain returns the methods in the order in which they are tried.
func Chain() []Method { return []Method{Helper, Kernel, FUSE, Own, Unpack} }

// Request says what is to appear where.
type Request struct {
	Image      string // path of the squashfs file
	MountPoint string // absolute path where the content is to appear; need not exist

	// Declared is the mount point that the image itself names, "" if none. The
	// content of an image works nowhere else, so MountPoint must equal it.
	Declared string

	// Digest is checked against the file first. It is "" if the caller has just
	// done so, or if nothing says what it should be.
	Digest digest.Digest

	Methods []Method // tried in order; nil is Chain()

	// Server is the command that runs Serve with Alone, without its last two
	// arguments: the image and the directory. Without it there is no method Own.
	Server  []string
	WorkDir string // where private directories are made; "" is the system's temporary directory
	Events  event.Sink
}

// Attempt tells why a method was not used.
type Attempt struct {
	Method Method `json:"method"`
	Reason string `json:"reason"` // "" for the one that is in use
}

// Mount is an image whose content appears at a path for the commands that it
// wraps. It must be closed.
type Mount struct {
	image, point string
	method       Method
	attempts     []Attempt

	source string                  // where the content is, as seen by enter's commands
	boxed  bool                    // source is elsewhere: the sandbox binds it to point
	enter  func(proc.Cmd) proc.Cmd // into where source is
	holder *holder                 // keeps the mount alive; nil for a copy and with the helper
	work   *scratch.Dir
}

// At makes the image's content appear, by the first method that works here.
func At(ctx context.Context, r Request) (*Mount, error) {
	image, err := filepath.Abs(r.Image)
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	r.Image = image
	if err := checkPoint(r.MountPoint, r.Declared); err != nil {
		return nil, err
	}
	if err := checkImage(ctx, r); err != nil {
		return nil, err
	}
	methods := r.Methods
	if len(methods) == 0 {
		methods = Chain()
	}
	var attempts []Attempt
	var last error
	for _, method := range methods {
		m, err := try(ctx, r, method)
		if err == nil {
			m.attempts = append(attempts, Attempt{Method: method})
			r.Events.Info(stage, "%s appears at %s by %s", filepath.Base(image), r.MountPoint, method)
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, fault.Wrap(fault.Interrupted, context.Cause(ctx), "mount %s", image)
		}
		r.Events.Info(stage, "not by %s: %s", method, reason(err))
		attempts, last = append(attempts, Attempt{method, reason(err)}), err
	}
	return nil, failure(r, attempts, last)
}

// Method returns the method in use.
func (m *Mount) Method() Method { return m.method }

// Attempts returns the methods that were tried before, and why they were not
// used; the last entry is the method in use.
func (m *Mount) Attempts() []Attempt { return slices.Clone(m.attempts) }

// MountPoint returns the path where wrapped commands see the content.
func (m *Mount) MountPoint() string { return m.point }

// Command returns the command that runs c where the content appears at the mount
// point and all else is as on the host. c.Path is looked for on the PATH of
// c.Env, so that programs of the image are found; exit code 127 tells that it
// was not, 126 that it is no program.
func (m *Mount) Command(c proc.Cmd) (proc.Cmd, error) { return m.command(c, nil, true) }

// command is Command with options for the env(1) that starts c. What is not tied
// to us has the file descriptors that we inherited.
func (m *Mount) command(c proc.Cmd, options []string, tied bool) (proc.Cmd, error) {
	if strings.Contains(c.Path, "=") {
		return proc.Cmd{}, fault.New(fault.Usage, "cannot run %q in an image: the name contains '='", c.Path)
	}
	if c.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return proc.Cmd{}, fmt.Errorf("mount: %w", err)
		}
		c.Dir = dir
	}
	c.Args = append([]string{c.Path}, c.Args...)
	c.Path = "env"
	if m.boxed {
		c.Args = append(options, c.Args...)
		if tied {
			var err error
			if c, err = sandbox.Tether(c); err != nil {
				return proc.Cmd{}, fmt.Errorf("mount: %w", err)
			}
		}
		return m.Sandboxed(sandbox.Spec{Transparent: true}, c)
	}
	env, loader := m.environ(c.Env), []string(nil)
	if m.holder != nil { // as in a sandbox, see there; the helper has its own way
		env, loader = sandbox.SplitEnv(env)
	}
	c.Args = slices.Concat(options, []string{"--chdir=" + c.Dir}, loader, c.Args) // the directory need not exist outside
	c.Dir, c.Env = "", env
	return m.enter(c), nil
}

// Sandboxed returns the command that runs c in a sandbox of the caller's choice,
// in which the content appears at the mount point.
func (m *Mount) Sandboxed(spec sandbox.Spec, c proc.Cmd) (proc.Cmd, error) {
	c.Env = m.environ(c.Env)
	spec.Binds = append(slices.Clip(spec.Binds), sandbox.Bind{Source: m.source, Target: m.point})
	c, err := spec.Command(c)
	if err != nil {
		return proc.Cmd{}, fmt.Errorf("mount: %w", err)
	}
	if spec.Transparent {
		c.Args = append([]string{"--die-with-parent"}, c.Args...)
	}
	return m.enter(c), nil
}

// environ adds the variable by which other programs know what is mounted.
func (m *Mount) environ(env []string) []string {
	return setEnv(env, mountListVariable, m.image+":"+m.point)
}

// Close makes the content disappear. It may be called again.
func (m *Mount) Close() error {
	if m.holder != nil {
		m.holder.stop()
		m.holder = nil
	}
	if m.work == nil {
		return nil
	}
	err := m.work.Remove()
	m.work = nil
	if err != nil {
		return fmt.Errorf("clean up the mount of %s: %w", m.image, err)
	}
	return nil
}

// try makes the content appear by one method and proves it with a command.
func try(ctx context.Context, r Request, method Method) (_ *Mount, err error) {
	m := &Mount{image: r.Image, point: r.MountPoint, method: method, enter: func(c proc.Cmd) proc.Cmd { return c }}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	switch method {
	case Helper:
		err = m.startHelper(ctx)
	case Kernel, FUSE, Own:
		err = m.startHeld(ctx, r)
	case Unpack:
		err = m.startUnpacked(ctx, r)
	default:
		_, err = ParseMethod(string(method))
	}
	if err != nil {
		return nil, err
	}
	return m, m.probe(ctx)
}

// probe lists the mount point as a wrapped command sees it.
func (m *Mount) probe(ctx context.Context) error {
	c, err := m.Command(proc.Cmd{Path: "ls", Args: []string{"-A", m.point}, Env: toolEnv()})
	if err != nil {
		return err
	}
	_, err = c.Output(ctx)
	return err
}

func checkImage(ctx context.Context, r Request) error {
	info, err := os.Stat(r.Image)
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "mount %s: there is no such file", r.Image)
	}
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, "mount %s: not a regular file", r.Image)
	}
	if r.Digest == "" {
		return nil
	}
	return Verify(ctx, r.Image, r.Digest, r.Events)
}

// reason is the last line of an error, which is what a tool said of its failure.
func reason(err error) string {
	var exit *proc.ExitError
	text := err.Error()
	if errors.As(err, &exit) && strings.TrimSpace(exit.Stderr) != "" {
		text = strings.TrimSpace(exit.Stderr)
	}
	return strings.ReplaceAll(text, "\n", "; ")
}

func failure(r Request, attempts []Attempt, last error) error {
	if len(attempts) == 1 {
		return fault.WithHint(fault.Wrap(fault.KindOf(last), last, "mount %s at %s by %s", r.Image, r.MountPoint, attempts[0].Method),
			"%s", fault.HintOf(last))
	}
	var lines []string
	for _, a := range attempts {
		lines = append(lines, fmt.Sprintf("%s: %s", a.Method, a.Reason))
	}
	return fault.WithHint(
		fault.New(fault.Failure, "mount %s at %s: no method works here\n%s", r.Image, r.MountPoint, strings.Join(lines, "\n")),
		"bubblewrap, with squashfuse where images are large, is what an ordinary user needs")
}
