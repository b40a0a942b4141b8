package mount

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pathcheck"
)

// checkPoint refuses mount points that an image must not take.
func checkPoint(point, declared string) error {
	refuse := func(why string) error {
		return fault.New(fault.Invalid, "mount point %q: %s", point, why)
	}
	if err := pathcheck.MountPoint(point); err != nil {
		return refuse(err.Error())
	}
	if declared != "" && declared != point {
		return fault.WithHint(refuse("the image is made for "+declared), "an image works only at the mount point for which it was built")
	}
	real, err := resolve(point)
	if err != nil {
		return refuse(err.Error())
	}
	if err := pathcheck.MountPoint(real); err != nil {
		return refuse(err.Error())
	}
	for _, home := range homes() {
		if pathcheck.Within(home, point) || pathcheck.Within(home, real) {
			return refuse("an image must not cover a home directory")
		}
	}
	if info, err := os.Stat(point); err == nil && !info.IsDir() {
		return refuse("it is not a directory")
	}
	return nil
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
