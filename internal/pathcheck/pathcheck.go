// Package pathcheck judges paths by their text alone.
package pathcheck

import (
	"errors"
	"path"
	"slices"
	"strings"
	"unicode"
)

// DefaultMount is where an image is mounted whose recipe and matrix name no other place.
const DefaultMount = "/user-environment"

// system lists directories of a host in which nothing may be covered.
var system = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"}

// tops lists directories that may not be covered themselves; what lies below
// them may.
var tops = []string{
	"/", "/dev/shm", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/run/user", "/scratch", "/srv", "/tmp",
	"/users", "/usr/local", "/var", "/var/lib", "/var/tmp",
}

// exceptions lists what may have mount points although it is in a system
// directory.
var exceptions = []string{"/dev/shm", "/usr/local"}

// MountPoint returns why no image can be made for a path, or mounted there; nil
// if one can.
func MountPoint(point string) error {
	switch {
	case point == "":
		return errors.New("it is empty")
	case !path.IsAbs(point) || path.Clean(point) != point:
		return errors.New("it is not a plain absolute path")
	case strings.ContainsFunc(point, func(c rune) bool { return c == ',' || c == ':' || unicode.IsSpace(c) || unicode.IsControl(c) }):
		return errors.New("clients cannot use one with commas, colons or blanks")
	case slices.Contains(tops, point) || path.Dir(point) == "/home":
		return errors.New("an image must not cover this directory")
	}
	inside := func(dir string) bool { return Within(point, dir) }
	if slices.ContainsFunc(system, inside) && !slices.ContainsFunc(exceptions, inside) {
		return errors.New("an image must not cover a part of the system")
	}
	return nil
}

// Within tells whether a clean path is dir or below it.
func Within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
