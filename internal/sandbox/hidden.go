package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"uenv-ci.dev/internal/pathcheck"
)

// hiddenPlaces are the places of a host that hold temporary files, homes,
// sockets of services and secrets of the system. Those that a host does not
// have are skipped. Sockets count: binding one read-only does not keep a program
// from talking to the service behind it.
var hiddenPlaces = []string{
	"/home", "/root", "/run", "/var/run", "/var/tmp",
	"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d",
	"/etc/ssh/ssh_host_*", "/etc/munge", "/etc/krb5.keytab", "/etc/ssl/private",
	"/etc/docker", "/etc/containers/auth.json", "/etc/gitlab-runner",
	"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/gitlab-runner", "/var/lib/kubelet",
	"/var/lib/munge", "/var/spool/slurmd",
}

// hiddenVariables name files or directories with credentials. Relative ones count
// from where we are.
var hiddenVariables = []string{
	"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
	"SSH_AUTH_SOCK", "GNUPGHOME", "KRB5CCNAME", "KRB5_KTNAME", "NETRC", "X509_USER_PROXY", "XAUTHORITY",
	"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "KUBECONFIG",
}

// hidden returns what a sandbox hides: links followed, sorted, without what lies
// below another of them. What does not exist needs no hiding, nor does what a
// variable names and this user cannot reach, as after su; anything else that
// cannot be found is an error. home is that of the user's account, which need not be
// the one that the variable names, nor below /home.
func hidden(more []string, home string) ([]string, error) {
	paths := existing(hiddenPlaces)
	all := slices.Clone(more)
	if home != "" {
		all = append(all, home)
	}
	for _, name := range hiddenVariables {
		all = append(all, filesOf(name, os.Getenv(name))...)
	}
	for i, path := range all {
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("hide %s: %w", path, err)
		}
		real, err := filepath.EvalSymlinks(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		case errors.Is(err, fs.ErrPermission) && i >= len(more):
		case err != nil:
			return nil, fmt.Errorf("hide %s: %w", path, err)
		case real != "/":
			paths = append(paths, real)
		}
	}
	slices.Sort(paths)
	return outermost(paths), nil
}

// accountHome returns the home directory of the user's account, "" if there is none
// to be hidden: those of /home are in any case, and users of the system have
// directories such as /usr/sbin.
func accountHome() string {
	u, err := user.Current()
	if err != nil || pathcheck.MountPoint(filepath.Clean(u.HomeDir)) != nil {
		return ""
	}
	return u.HomeDir
}

// existing returns what some patterns stand for, links followed, sorted. What
// this user cannot find is out of reach of his programs too.
func existing(patterns []string) []string {
	var paths []string
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern)
		for _, path := range matches {
			if real, err := filepath.EvalSymlinks(path); err == nil && real != "/" {
				paths = append(paths, real)
			}
		}
	}
	slices.Sort(paths)
	return paths
}

// cacheType is what may stand before the path of a Kerberos cache or key table,
// as in DIR::/path/of/one.
var cacheType = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*::?`)

// filesOf returns the paths in the value of a variable.
func filesOf(name, value string) []string {
	switch {
	case value == "":
		return nil
	case name == "KUBECONFIG":
		return slices.DeleteFunc(filepath.SplitList(value), func(path string) bool { return path == "" })
	case strings.HasPrefix(name, "KRB5"):
		path := cacheType.ReplaceAllString(value, "")
		if path == "" {
			return nil
		}
		if strings.HasPrefix(value, "DIR::") {
			return []string{filepath.Dir(path)} // one of several in a directory
		}
		return []string{path}
	}
	return []string{value}
}

// outermost removes duplicates and paths below another one of the sorted paths.
func outermost(paths []string) []string {
	var out []string
	for _, path := range paths {
		if !slices.ContainsFunc(out, func(o string) bool { return pathcheck.Within(path, o) }) {
			out = append(out, path)
		}
	}
	return out
}
