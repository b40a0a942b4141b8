package mount

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"uenv-ci.dev/internal/fault"
)

// system lists directories of the host in which nothing may be covered.
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

// checkPoint refuses mount points that an image must not take.
func checkPoint(point, declared string) error {
	refuse := func(why string) error {
		return fault.New(fault.Invalid, "mount point %q: %s", point, why)
	}
	switch {
	case point == "":
		return refuse("it is empty")
	case !filepath.IsAbs(point) || filepath.Clean(point) != point:
		return refuse("it is not a plain absolute path")
	case strings.ContainsFunc(point, func(c rune) bool { return c == ',' || c == ':' || unicode.IsSpace(c) || unicode.IsControl(c) }):
		return refuse("clients cannot use one with commas, colons or blanks")
	case declared != "" && declared != point:
		return fault.WithHint(refuse("the image is made for "+declared), "an image works only at the mount point for which it was built")
	}
	real, err := resolve(point)
	if err != nil {
		return refuse(err.Error())
	}
	for _, path := range []string{point, real} {
		if why := forbidden(path, homes()); why != "" {
			return refuse(why)
		}
	}
	if info, err := os.Stat(point); err == nil && !info.IsDir() {
		return refuse("it is not a directory")
	}
	return nil
}

func forbidden(path string, homes []string) string {
	if slices.Contains(tops, path) || filepath.Dir(path) == "/home" {
		return "an image must not cover this directory"
	}
	inside := func(dir string) bool { return within(path, dir) }
	if slices.ContainsFunc(system, inside) && !slices.ContainsFunc(exceptions, inside) {
		return "an image must not cover a part of the system"
	}
	if slices.ContainsFunc(homes, func(home string) bool { return within(home, path) }) {
		return "an image must not cover a home directory"
	}
	return ""
}

// homes returns the user's home directories, by the environment and by the
// system.
func homes() []string {
	var found []string
	if home, err := os.UserHomeDir(); err == nil {
		found = append(found, home)
	}
	if u, err := user.Current(); err == nil {
		found = append(found, u.HomeDir)
	}
	return slices.DeleteFunc(found, func(home string) bool { return !filepath.IsAbs(home) || home == "/" })
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve follows the links in the part of path that exists.
func resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if _, err := os.Lstat(path); err == nil {
		return "", errors.New("it is a link to nothing")
	}
	parent, err := resolve(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}
