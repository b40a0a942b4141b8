package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// settingPlaces are the places where services keep their settings and state. An
// ordinary user in a sandbox sees of them what he sees outside; root, even
// without capabilities, owns what was meant for nobody else.
var settingPlaces = []string{"/etc", "/opt", "/srv", "/var"}

const (
	// maxLooked bounds how many entries are looked at: breadth first, since
	// settings are not as deep down as software is.
	maxLooked = 200_000
	// maxMasked is how many entries of a directory are masked one by one, rather
	// than all of it. bubblewrap takes 9000 arguments.
	maxMasked = 64
)

// RootOnly returns what root can read below /etc, /opt, /srv and /var and others
// cannot, to be hidden from programs that strangers wrote: nothing for an
// ordinary user. It reads directories, so callers ask once for many sandboxes.
func RootOnly() []string {
	if os.Getuid() != 0 {
		return nil
	}
	groups, err := os.Getgroups()
	if err != nil {
		groups = nil
	}
	return rootOnly(settingPlaces, append(groups, os.Getgid()))
}

// HostChanged tells, by the exit code of a command that ran in a sandbox and the
// end of what it wrote to stderr, whether the sandbox could not be made because
// something that it was to hide vanished meanwhile. The command did not start
// then, and can be made again.
func HostChanged(code int, lines []string) bool {
	return code == 1 && slices.ContainsFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, program+": Can't mkdir parents for ") || strings.HasPrefix(line, program+": Can't create file at ")
	})
}

func rootOnly(places []string, groups []int) []string {
	var masked, queue []string
	for _, place := range places {
		if real, err := filepath.EvalSymlinks(place); err == nil {
			queue = append(queue, real)
		}
	}
	tops, skip := len(queue), outermost(existing(hiddenPlaces))
	for looked := 0; len(queue) > 0 && looked < maxLooked; tops-- {
		dir := queue[0]
		queue = queue[1:]
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		looked += len(entries)
		var here, below []string
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			info, err := e.Info()
			switch {
			case err != nil || slices.Contains(skip, path):
			case isPrivate(info, groups):
				here = append(here, path)
			case e.IsDir():
				below = append(below, path)
			}
		}
		if len(here) > maxMasked && tops <= 0 {
			masked = append(masked, dir)
			continue
		}
		masked, queue = append(masked, here...), append(queue, below...)
	}
	return masked
}

// isPrivate tells whether root can read a file, enter a directory or talk to a
// socket by the rights of its owner or group, and others cannot.
func isPrivate(info fs.FileInfo, groups []int) bool {
	need := fs.FileMode(0o4)
	switch info.Mode().Type() {
	case 0, fs.ModeNamedPipe:
	case fs.ModeDir:
		need = 0o1
	case fs.ModeSocket:
		need = 0o2
	default:
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&need != 0 {
		return false
	}
	// An owner gives himself the rights that he lacks.
	return owner.Uid == 0 || slices.Contains(groups, int(owner.Gid)) && info.Mode()&(need<<3) != 0
}
