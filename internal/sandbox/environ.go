package sandbox

import (
	"slices"
	"strings"
)

// loaderNames lists the variables that the loader takes from setuid programs
// (glibc, unsecvars.h), but for those that begin with LD_.
var loaderNames = []string{
	"GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH",
	"MALLOC_ARENA_MAX", "MALLOC_ARENA_TEST", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_PERTURB_",
	"MALLOC_TOP_PAD_", "MALLOC_TRACE", "MALLOC_TRIM_THRESHOLD_",
	"NIS_PATH", "NLSPATH", "RESOLV_HOST_CONF", "RES_OPTIONS", "TMPDIR",
}

// SplitEnv takes from an environment the variables by which it could make a
// program that only prepares for another one, such as bubblewrap, run or load
// something else. Those programs are written to be safe with the rest.
func SplitEnv(env []string) (safe, loader []string) {
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "LD_") || slices.Contains(loaderNames, name) {
			loader = append(loader, entry)
		} else {
			safe = append(safe, entry)
		}
	}
	return safe, loader
}

// setenv returns the options by which bubblewrap sets variables for the program.
func setenv(env []string) []string {
	var args []string
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		args = append(args, "--setenv", name, value)
	}
	return args
}
