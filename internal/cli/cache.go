package cli

import (
	"path/filepath"
	"slices"

	"uenv-ci.dev/internal/catalog"
)

// cacheDir is a directory of the user's for what can be had again; "" if there is
// no place for one.
func (in *invocation) cacheDir(name string) string {
	base := in.getenv("XDG_CACHE_HOME")
	if home := in.getenv("HOME"); base == "" && home != "" {
		base = filepath.Join(home, ".cache")
	}
	if !filepath.IsAbs(base) {
		return ""
	}
	return filepath.Join(base, programName, name)
}

// readers are the commands that change nothing in a registry.
var readers = []string{
	"find", "ls", "inspect", "diff", "pull", "upgrade", "run", "rm", "repo",
	"lint", "configure", "pack", "unpack", "verify", "mount", "doctor", "completion", "version", "help",
}

// forget drops kept answers after a command that may have changed a registry.
func (in *invocation) forget(command string) {
	if !slices.Contains(readers, command) {
		catalog.Forget(in.cacheDir("catalog"))
	}
}
