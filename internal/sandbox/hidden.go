package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// hiddenVariables name files or directories with credentials, as absolute paths.
var hiddenVariables = []string{
	"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
	"SSH_AUTH_SOCK", "GNUPGHOME", "KRB5CCNAME", "KRB5_KTNAME", "NETRC", "X509_USER_PROXY", "XAUTHORITY",
	"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "KUBECONFIG",
}

// hidden returns what a sandbox hides: links followed, sorted, without what lies
// below another of them.
func hidden(more []string) []string {
	var patterns []string
	patterns = append(patterns, hiddenPlaces...)
	for _, name := range hiddenVariables {
		patterns = append(patterns, strings.TrimPrefix(os.Getenv(name), "FILE:"))
	}
	var found []string
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern)
		found = append(found, matches...)
	}
	found = append(found, more...)

	var paths []string
	for _, path := range found {
		real, err := filepath.EvalSymlinks(path)
		if err == nil && filepath.IsAbs(path) && real != "/" {
			paths = append(paths, real)
		}
	}
	slices.Sort(paths)
	return outermost(paths)
}

// outermost removes duplicates and paths below another one of the sorted paths.
func outermost(paths []string) []string {
	var out []string
	for _, path := range paths {
		if !slices.ContainsFunc(out, func(o string) bool { return within(path, o) }) {
			out = append(out, path)
		}
	}
	return out
}
