// Package sandbox runs programs in a bubblewrap sandbox that holds for root too.
//
// Inside, the host is there read-only, entry by entry, without the places where
// credentials and other people's files are; /tmp, /dev/shm and HOME are private;
// process ids, IPC and the host name are the sandbox's own; no capability is
// left; and all of it ends with the process that started it.
package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

const program = "bwrap"

// Spec describes a sandbox. The zero value is one without network and without
// any writable directory of the host.
type Spec struct {
	// Binds are made in order, after everything else. A target need not exist
	// on the host.
	Binds []Bind

	// Network keeps the host's network. Otherwise there is a loopback device.
	Network bool

	// Home is the directory that appears as HOME, "" for an empty one in memory.
	Home string

	// Tmp is the directory that appears as /tmp, "" for an empty one in memory.
	Tmp string

	// Hide lists more paths of the host that are to be empty inside.
	// Paths that do not exist are ignored. Binds may bring back what lies below.
	Hide []string

	// Flat makes directories of the links in / that lead to a directory of /usr,
	// such as /lib, as the sandboxes of upstream's builds do: Spack puts where the
	// C library really is into the hashes of packages. A link stays one where
	// anything below it is hidden or bound.
	Flat bool

	// Transparent isolates nothing: the host is as it is, with the same
	// processes, terminal and rights, and only Binds are added. It is for
	// running a user's own program on an image; Network, Home, Tmp and Hide
	// do not count.
	Transparent bool
}

// Bind makes a directory or file of the host appear at a path inside.
type Bind struct {
	Source, Target string // absolute
	Writable       bool
}

// Command returns the command that runs c inside the sandbox. The environment of
// c is all the program sees, and HOME in it becomes Home(); c.Dir is a
// directory inside, "" for the root.
func (s Spec) Command(c proc.Cmd) (proc.Cmd, error) {
	bwrap, ok := proc.Look(program)
	if !ok {
		return proc.Cmd{}, errMissing()
	}
	l, err := s.layout()
	if err == nil && !s.Transparent {
		c, err = Tether(c)
	}
	if err != nil {
		return proc.Cmd{}, err
	}
	args := append(s.namespaces(os.Getuid()), l.args...)
	if c.Dir != "" {
		args = append(args, "--chdir", c.Dir)
	} else if !s.Transparent {
		args = append(args, "--chdir", "/")
	}
	// The environment may be an image's: what could reach bwrap itself is set
	// inside only. bwrap's own is readable there as that of process 1, so it gets
	// nothing but the program's.
	env, loader := SplitEnv(c.Env)
	args = append(args, setenv(loader)...)
	args = append(append(args, "--", c.Path), c.Args...)
	c.Path, c.Args, c.Env, c.Dir = bwrap, args, env, ""
	if !s.Transparent {
		c.Env, c.Dir = withHome(env), "/"
	}
	return c, nil
}

// namespaces returns the options that do not concern the file system.
func (s Spec) namespaces(uid int) []string {
	if s.Transparent {
		return nil
	}
	args := []string{
		"--unshare-pid", "--unshare-ipc", "--unshare-cgroup-try",
		"--unshare-uts", "--hostname", "localhost",
		"--new-session", "--die-with-parent", "--cap-drop", "ALL",
	}
	if uid != 0 {
		args = append(args, "--unshare-user")
	}
	if !s.Network {
		args = append(args, "--unshare-net")
	}
	return args
}

// Home returns the directory that is HOME inside a sandbox: the user's own path,
// with other content.
func Home() string {
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) && filepath.Clean(home) != "/" {
		return filepath.Clean(home)
	}
	return "/home/user"
}

func withHome(env []string) []string {
	out := make([]string, 0, len(env)+1)
	for _, v := range env {
		if !strings.HasPrefix(v, "HOME=") {
			out = append(out, v)
		}
	}
	return append(out, "HOME="+Home())
}

// Available returns nil if sandboxes work on this machine, for this user, else
// why they do not.
func Available(ctx context.Context) error {
	c, err := Spec{}.Command(proc.Cmd{Path: "/bin/sh", Args: []string{"-c", ":"}})
	if err != nil {
		return err
	}
	err = c.Run(ctx)
	var exit *proc.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	reason := strings.TrimSpace(strings.TrimPrefix(exit.Stderr, program+":"))
	return fault.WithHint(
		fault.New(fault.Failure, "bubblewrap cannot make a sandbox here: %s", reason),
		"an ordinary user needs unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces); root in a container needs the right to mount")
}

func errMissing() error {
	return fault.WithHint(fault.New(fault.Failure, "bubblewrap is not installed: no program %s on PATH", program),
		"install the package bubblewrap")
}
