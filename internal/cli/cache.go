package cli

import "path/filepath"

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
