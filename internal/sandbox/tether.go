package sandbox

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// tetherScript starts a program unless the tether, a file descriptor, is broken.
// The program itself does not get it.
const tetherScript = `echo >&%[1]d || exit; exec %[1]d>&-; exec "$@"`

// Tether returns the command that runs c only if this process lives when c begins.
// bubblewrap asks the kernel to kill a program with its parent, but a parent that
// dies before it comes to ask is not noticed: the program would run on for itself
// (containers/bubblewrap issue 633). Command does this for all sandboxes that are
// not Transparent.
func Tether(c proc.Cmd) (proc.Cmd, error) {
	env, unsafe := splitForShell(c.Env)
	program := append([]string{c.Path}, c.Args...)
	if len(unsafe) > 0 {
		if strings.Contains(c.Path, "=") {
			return c, fault.New(fault.Usage, "cannot run %q in a sandbox: the name contains '='", c.Path)
		}
		program = slices.Concat([]string{"env", "--"}, unsafe, program)
	}
	c.Args = append([]string{"-c", fmt.Sprintf(tetherScript, 3+len(c.ExtraFiles)), "sandbox"}, program...)
	c.Path, c.Env, c.Tether = "/bin/sh", env, true
	return c, nil
}

// plainName is what a shell takes for a variable's name. It drops others, such as
// those of functions that bash exports.
var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// shellNames lists the variables that a shell does not hand on as they were, or that
// change what it does.
var shellNames = []string{
	"_", "BASHOPTS", "EUID", "FUNCNAME", "GROUPS", "IFS", "LINENO", "OLDPWD", "OPTARG", "OPTERR", "OPTIND",
	"POSIXLY_CORRECT", "PPID", "PS4", "PWD", "RANDOM", "SECONDS", "SHELLOPTS", "SHLVL", "UID",
}

// splitForShell takes from an environment what a shell would not hand on, and what
// the loader would take for it.
func splitForShell(env []string) (safe, unsafe []string) {
	plain, unsafe := SplitEnv(env)
	for _, entry := range plain {
		name, _, ok := strings.Cut(entry, "=")
		if ok && name != "" && (!plainName.MatchString(name) || slices.Contains(shellNames, name)) {
			unsafe = append(unsafe, entry)
		} else {
			safe = append(safe, entry)
		}
	}
	return safe, unsafe
}
