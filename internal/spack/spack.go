// Package spack drives a Spack installation and reads what it writes: its
// install database, its lock files, its activation scripts and its errors.
// Where a file of Spack says what a command would say, the file is read: each
// start of Spack takes half a second.
package spack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// Variable names a directory with a Spack installation.
const Variable = "UENV_CI_SPACK"

// PythonVariable is the environment variable that names the Python for Spack, as Spack
// itself uses it.
const PythonVariable = "SPACK_PYTHON"

// Installation is a Spack that is there.
type Installation struct {
	Dir     string // its prefix: holds bin/spack
	Version Version
	Commit  string // "" if not known
	Source  string // how it was found: for people
}

// Locate finds the installation to use: the directory explicit if not empty, else
// that which UENV_CI_SPACK names, else that of the program spack on PATH. ok is
// false if there is none.
func Locate(explicit string) (in Installation, ok bool, err error) {
	switch env := os.Getenv(Variable); {
	case explicit != "":
		in, err = Open(explicit)
		in.Source = explicit
	case env != "":
		in, err = Open(env)
		in.Source = Variable + "=" + env
	default:
		program, found := proc.Look("spack")
		if !found {
			return Installation{}, false, nil
		}
		if program, err = filepath.EvalSymlinks(program); err != nil {
			return Installation{}, false, fmt.Errorf("find Spack: %w", err)
		}
		in, err = Open(filepath.Dir(filepath.Dir(program)))
		in.Source = "spack on PATH"
	}
	return in, err == nil, err
}

// Open looks at the installation in a directory.
func Open(dir string) (Installation, error) {
	real, err := filepath.Abs(dir)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return Installation{}, fault.Wrap(fault.NotFound, err, "find Spack")
	}
	program, err := os.Stat(filepath.Join(real, "bin", "spack"))
	if err != nil || program.Mode()&0o111 == 0 {
		return Installation{}, errNotSpack(dir)
	}
	text, err := os.ReadFile(filepath.Join(real, "lib", "spack", "spack", "__init__.py"))
	if errors.Is(err, fs.ErrNotExist) {
		return Installation{}, errNotSpack(dir)
	}
	if err != nil {
		return Installation{}, fmt.Errorf("find Spack: %w", err)
	}
	match := versionLine.FindSubmatch(text)
	if match == nil {
		return Installation{}, errNotSpack(dir)
	}
	version, err := ParseVersion(string(match[1]))
	if err != nil {
		return Installation{}, fmt.Errorf("find Spack in %s: %w", dir, err)
	}
	return Installation{Dir: real, Version: version, Source: dir}, nil
}

var versionLine = regexp.MustCompile(`(?m)^(?:spack_version|__version__) *= *['"]([^'"]+)['"]`)

func errNotSpack(dir string) error {
	return fault.WithHint(fault.New(fault.NotFound, "%s is not a Spack installation", dir),
		"it should hold bin/spack and lib/spack, as a clone of github.com/spack/spack does")
}

// Version is a version of Spack.
type Version struct {
	Major, Minor int
	Text         string // as Spack writes it, such as 0.23.0 or 1.0.0.dev0
}

// ParseVersion reads a version.
func ParseVersion(s string) (Version, error) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) >= 2 {
		major, err1 := strconv.Atoi(parts[0])
		minor, err2 := strconv.Atoi(parts[1])
		if err1 == nil && err2 == nil {
			return Version{major, minor, s}, nil
		}
	}
	return Version{}, fmt.Errorf("unknown version %q", s)
}

func (v Version) String() string { return v.Text }

// AtLeast tells whether v is major.minor or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

var namedVersion = regexp.MustCompile(`v?([0-9]+)\.([0-9]+)`)

// Matches tells whether v may be what a branch or tag names: it is not if that
// holds another version, as releases/v0.22 does.
func (v Version) Matches(reference string) bool {
	m := namedVersion.FindStringSubmatch(reference)
	return m == nil || m[1] == strconv.Itoa(v.Major) && m[2] == strconv.Itoa(v.Minor)
}

// Reads returns an error if this version of Spack cannot read the configuration
// that a recipe format stands for.
func (in Installation) Reads(format int) error {
	need, ok := "", true
	switch format {
	case 1:
		need, ok = "0.21 to 0.23", in.Version.AtLeast(0, 21) && !in.Version.AtLeast(1, 0)
	case 2:
		need, ok = "0.23, or 1.0 or newer", in.Version.AtLeast(0, 23)
	case 3:
		// Before 1.0 its groups are environments; between, they would be refused.
		need, ok = "0.23, or 1.2 or newer", in.Version.AtLeast(1, 2) || in.Version.AtLeast(0, 23) && !in.Version.AtLeast(1, 0)
	}
	if ok {
		return nil
	}
	return fault.New(fault.Invalid, "recipe format %d needs Spack %s, but %s is %s", format, need, in.Source, in.Version)
}

// Command returns the command that runs spack with arguments.
func (in Installation) Command(args ...string) proc.Cmd {
	return proc.Cmd{Path: filepath.Join(in.Dir, "bin", "spack"), Args: args}
}

// Environ returns the variables that make Spack use only the configuration below
// config, and keep its caches below cache. User configuration is read from the
// directory user.
func Environ(config, cache, user string) []string {
	return []string{
		"SPACK_SYSTEM_CONFIG_PATH=" + config,
		"SPACK_USER_CONFIG_PATH=" + user,
		"SPACK_USER_CACHE_PATH=" + cache,
		"SPACK_COLOR=never",
		"MAKEFLAGS=", // a job server of ours would be closed under Spack's feet
	}
}
