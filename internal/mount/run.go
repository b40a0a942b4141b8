package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"uenv-ci.dev/internal/proc"
)

// Options of env(1), which has had them since coreutils 8.31. A terminal sends
// Ctrl-C to all of its programs. Those that make the content appear must not die
// of it, or they take the program along, which may want to go on.
const (
	ignoreKeys  = "--ignore-signal=INT,QUIT"
	restoreKeys = "--default-signal=INT,QUIT"
)

// Run runs a user's own command where the content appears, as if it had taken our
// place: what is sent to us by signals is passed on to it alone, and it ends us by
// its end. A command on a terminal (Foreground) gets the terminal's from there.
func (m *Mount) Run(ctx context.Context, c proc.Cmd, signals <-chan os.Signal) error {
	onTerminal := c.Foreground
	keys := onTerminal && proc.Cmd{Path: "env", Args: []string{restoreKeys, "true"}, Env: toolEnv()}.Run(ctx) == nil
	var options []string
	if keys {
		options = []string{restoreKeys}
	}
	c, err := m.command(c, options, false)
	if err != nil {
		return err
	}
	if keys {
		c.Args = append([]string{ignoreKeys, c.Path}, c.Args...)
		c.Path = "env"
	}
	p, err := c.Start(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if onTerminal && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
					continue
				}
				m.pass(p.Pid(), s.(syscall.Signal))
			case <-ended:
				return
			}
		}
	}()
	return p.Wait()
}

// pass sends a signal to the user's program: the child of bubblewrap, else what
// the started process has become. While there is no child yet, bubblewrap itself
// gets it, and ends.
func (m *Mount) pass(pid int, s syscall.Signal) {
	if m.boxed {
		if child, err := onlyChild(pid); err == nil {
			pid = child
		}
	}
	syscall.Kill(pid, s)
}

func onlyChild(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	children := strings.Fields(string(data))
	if len(children) != 1 {
		return 0, errors.New("not one child")
	}
	return strconv.Atoi(children[0])
}
