package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"uenv-ci.dev/internal/proc"
)

// Shell says where in a build a shell is opened, and who talks to it.
type Shell struct {
	// Before is the stage before which it is opened; "" is where the build fails,
	// or its end.
	Before         string
	Terminal       bool // Stdin is one
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// errStopped ends a build before the stage at which a shell was asked for.
var errStopped = errors.New("stopped")

// OpenShell builds, up to where the shell is asked for, and opens it there: in
// the sandbox and with the environment of the build's programs, but for secrets.
// The build is gone when the shell ends. The error is a *proc.ExitError if the
// shell ended in one.
func OpenShell(ctx context.Context, o Options, s Shell) error {
	o.shell = &s
	_, err := Run(ctx, o)
	return err
}

// openShell opens the shell that was asked for, after a build that ended in
// failed.
func (j *job) openShell(failed error) error {
	if j.cell == nil || j.ctx.Err() != nil {
		return failed
	}
	s := j.shell
	switch {
	case errors.Is(failed, errStopped):
		j.Events.Info("shell", "before the stage %s", s.Before)
	case failed != nil:
		j.Events.Warn("shell", "where the build failed: %v", failed)
	case s.Before != "":
		j.Events.Warn("shell", "the build has no stage %q and came to its end", s.Before)
	default:
		j.Events.Info("shell", "at the end of the build")
	}
	cmd, err := j.shellCommand()
	if err != nil {
		return errors.Join(failed, err)
	}
	j.Events.Info("shell", "in %s; the build directory is removed when the shell ends", cmd.Dir)
	if j.cell.spec != nil {
		spec := *j.cell.spec
		spec.Network = !j.script() && !j.Offline || j.hookNetwork("build")
		binds, err := j.cell.buildBinds(true)
		if err != nil {
			return errors.Join(failed, err)
		}
		spec.Binds = append(binds, spec.Binds...)
		if cmd, err = spec.Command(cmd); err != nil {
			return errors.Join(failed, err)
		}
	}
	err = cmd.Run(j.ctx)
	if _, ended := errors.AsType[*proc.ExitError](err); ended && s.Terminal {
		return nil // with whatever its last command did
	}
	return err
}

// shellProfile is read by the shell, with the path of our scope for Spack.
const shellProfile = `PS1='[uenv-ci %s] \w\$ '
spack() { command spack -C %s "$@"; }
`

// shellCommand returns the shell as programs of the build are called.
func (j *job) shellCommand() (proc.Cmd, error) {
	profile := filepath.Join(engineScope, "shell")
	text := fmt.Sprintf(shellProfile, j.Stack.Recipe.Name, j.cell.inside(engineScope))
	if err := j.cell.files.write(profile, []byte(text), 0o644); err != nil {
		return proc.Cmd{}, fmt.Errorf("prepare the shell: %w", err)
	}
	file, s := j.cell.inside(profile), j.shell
	cmd := proc.Cmd{
		Path: "bash", Dir: j.shellDir(), Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Foreground: s.Terminal,
		Env: append(j.cell.env[:len(j.cell.env):len(j.cell.env)], "BASH_ENV="+file),
	}
	if !s.Terminal {
		return cmd, nil
	}
	cmd.Args = []string{"--rcfile", file, "-i"}
	cmd.Env = append(cmd.Env, inherited([]string{"TERM"})...)
	// The sandbox has a session of its own, so the terminal is not its: it gets
	// another one, in which Ctrl-C reaches what the shell runs, and nobody else.
	if _, ok := proc.Look("script"); ok {
		cmd.Path, cmd.Args = "script", []string{"--quiet", "--command", "bash --rcfile '" + file + "' -i", "/dev/null"}
	}
	return cmd, nil
}

// shellDir is where a shell starts: in the directory of the package that failed,
// else where the recipe's program runs, else in the build directory.
func (j *job) shellDir() string {
	if f := j.report.Failure; f != nil && f.Package != "" {
		// Spack adds the name of its user.
		found := globIn(j.cell.path("tmp", "spack-stage"), "*/spack-stage-"+f.Package+"-*")
		if len(found) == 1 {
			if j.cell.spec == nil {
				return found[0]
			}
			return strings.Replace(found[0], j.cell.path("tmp"), "/tmp", 1)
		}
	}
	for _, v := range j.cell.env {
		if dir, ok := strings.CutPrefix(v, "UENV_SOURCE="); ok {
			return dir
		}
	}
	return j.cell.Build
}
