package build

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/proc"
)

// timesScript runs a command and then writes the times of all its processes to
// the file descriptor 3, which the command itself does not get.
const timesScript = `"$@" 3>&-; code=$?; times >&3; exit $code`

// metered returns a command for a sandbox that also tells what it took:
// bubblewrap does not wait for the processes of a PID namespace, so the kernel does
// not add their time to its own; the shell that starts them in there has it. Without
// memory to write it to, the command is as it was and nothing is known.
func metered(c proc.Cmd) proc.Cmd {
	fd, err := unix.MemfdCreate("times", unix.MFD_CLOEXEC)
	if err != nil {
		return c
	}
	c.Args = append([]string{"-c", timesScript, "sh", c.Path}, c.Args...)
	c.Path, c.ExtraFiles = "/bin/sh", []*os.File{os.NewFile(uintptr(fd), "times")}
	return c
}

// readMeter returns the time that a command which was metered took with its
// descendants, 0 if it was killed before it could tell, and ends the measurement.
func readMeter(c proc.Cmd) time.Duration {
	if len(c.ExtraFiles) == 0 {
		return 0
	}
	defer c.ExtraFiles[0].Close()
	text := make([]byte, 256)
	n, err := c.ExtraFiles[0].ReadAt(text, 0)
	if n == 0 && err != nil {
		return 0
	}
	return parseTimes(string(text[:n]))
}

// parseTimes reads what the shell's times says: user and system time of itself,
// then of its children, as in 1m2.5s.
func parseTimes(text string) time.Duration {
	lines := strings.Split(text, "\n")
	if len(lines) < 2 {
		return 0
	}
	var total time.Duration
	for _, field := range strings.Fields(lines[1]) {
		minutes, rest, ok := strings.Cut(field, "m")
		m, err := strconv.ParseUint(minutes, 10, 31)
		s, err2 := strconv.ParseFloat(strings.TrimSuffix(rest, "s"), 64)
		if !ok || err != nil || err2 != nil || !(s >= 0 && s < 60) {
			return 0
		}
		total += time.Duration(m)*time.Minute + time.Duration(s*float64(time.Second))
	}
	return total
}
