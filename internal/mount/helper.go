package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
)

const (
	mountListVariable = "UENV_MOUNT_LIST"
	viewVariable      = "UENV_VIEW"
	forwardPrefix     = "SQFSMNT_FWD_"

	firstWithOption = 9 // major version of squashfs-mount that takes --sqfs
)

// startHelper uses the uenv client's setuid program, which mounts in a private
// namespace of the command. The mount point must exist on the host.
func (m *Mount) startHelper(ctx context.Context) error {
	program, ok := proc.Look(string(Helper))
	if !ok {
		return errors.New("not installed")
	}
	if strings.ContainsAny(m.image, ",: \t\n") {
		return fmt.Errorf("it cannot mount from %q", m.image)
	}
	if info, err := os.Stat(m.point); err != nil || !info.IsDir() {
		return fmt.Errorf("it needs a directory %s on the host", m.point)
	}
	mounts := []string{m.image + ":" + m.point}
	if major, err := majorVersion(ctx, program); err != nil || major >= firstWithOption {
		mounts = []string{"--sqfs=" + mounts[0]}
	}
	m.source = m.point
	m.enter = func(c proc.Cmd) proc.Cmd {
		c.Args = slices.Concat(mounts, []string{"--", c.Path}, c.Args)
		c.Path, c.Env = program, forward(c.Env)
		return c
	}
	return nil
}

// majorVersion asks a program of the uenv client for its version.
func majorVersion(ctx context.Context, program string) (int, error) {
	out, err := proc.Cmd{Path: program, Args: []string{"--version"}, Env: toolEnv()}.Output(ctx)
	if err != nil {
		return 0, err
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(out)), ".")
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return 0, fmt.Errorf("%s does not tell its version", program)
	}
	return strconv.Atoi(strings.TrimPrefix(fields[len(fields)-1], "v"))
}

// forward adds copies of variables that the loader removes, from which squashfs-mount
// restores them.
func forward(env []string) []string {
	out := slices.Clone(env)
	_, loader := sandbox.SplitEnv(env)
	for _, entry := range loader {
		out = append(out, forwardPrefix+entry)
	}
	return out
}

// setEnv returns env with one variable set.
func setEnv(env []string, name, value string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	return append(out, name+"="+value)
}

// toolEnv is the environment of the programs that only do our work.
func toolEnv() []string {
	return []string{"LC_ALL=C", "PATH=" + strings.TrimPrefix(os.Getenv("PATH")+":/usr/sbin:/usr/bin:/sbin:/bin", ":")}
}
