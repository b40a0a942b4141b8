package cli

import "path/filepath"

// cacheDir returns a directory in the user's cache; "" if there is no place for one.
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
