package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/site"
)

// Check is one thing that the program can use on this machine.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found, or what is done without it
}

// DoctorOptions say what to look at.
type DoctorOptions struct {
	BuildRoot string // "" is build.DefaultRoot
	// Mirrors and ChangeCache are the files of the protected build cache and of that
	// of changes; "" for none.
	Mirrors, ChangeCache string
	Environ              []string
}

// Doctor checks what is available on this machine. No command needs all of it.
func Doctor(ctx context.Context, o DoctorOptions) []Check {
	checks := []Check{
		program(ctx, "git", "--version", "creation times come from SOURCE_DATE_EPOCH or the clock"),
		compiler(ctx),
		sandboxCheck(ctx),
		device("/dev/fuse", "images are mounted by another method"),
		program(ctx, "squashfs-mount", "--version", "images are mounted by another method"),
		program(ctx, "squashfuse", "", "images are mounted by another method"),
		program(ctx, "uenv", "--version", "'uenv-ci run' does what it would do"),
		program(ctx, "spack", "--version", "Spack recipes need --spack DIR, UENV_CI_SPACK, or a clone from the network"),
		program(ctx, "reframe", "--version", "only the 'command' runner can test images"),
		program(ctx, "sbatch", "--version", "tests run here, not in Slurm jobs"),
	}
	checks = append(checks, space(o.BuildRoot))
	return append(checks, caches(o)...)
}

// caches tells whether the jobs of a change could write into the build cache that
// others believe.
func caches(o DoctorOptions) []Check {
	if o.Mirrors == "" {
		return nil
	}
	const name = "build caches"
	protected, err := site.LoadMirrors(o.Mirrors, doctorRecipe, pathcheck.DefaultMount)
	if err != nil {
		return []Check{{name, false, err.Error()}}
	}
	var change *site.Mirrors
	if o.ChangeCache != "" {
		if change, err = site.LoadMirrors(o.ChangeCache, doctorRecipe, pathcheck.DefaultMount); err != nil {
			return []Check{{name, false, err.Error()}}
		}
	}
	if why := build.NotIsolated(protected, change); why != "" {
		return []Check{{name, false, "not isolated: " + why}}
	}
	return []Check{{name, true, "the protected one cannot be written by this user"}}
}

// doctorRecipe is the version of recipes for which build caches are looked at: their
// files are the same for every one, and for every mount point but for a directory.
const doctorRecipe = 1

func program(ctx context.Context, name, versionFlag, without string) Check {
	path, ok := proc.Look(name)
	if !ok {
		return Check{name, false, "not installed: " + without}
	}
	if versionFlag == "" {
		return Check{name, true, path}
	}
	out, err := proc.Cmd{Path: path, Args: []string{versionFlag}, Env: os.Environ()}.Output(ctx)
	if err != nil {
		return Check{name, false, fmt.Sprintf("%s does not run: %v", path, err)}
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return Check{name, true, first}
}

// compiler looks where builds do, which do not have our PATH.
func compiler(ctx context.Context) Check {
	check := program(ctx, "/usr/bin/cc", "--version", "recipes that compile something cannot be built")
	check.Name = "C compiler"
	return check
}

func sandboxCheck(ctx context.Context) Check {
	if err := sandbox.Available(ctx); err != nil {
		return Check{"bubblewrap", false, fmt.Sprintf("%v: builds need --no-sandbox", err)}
	}
	return Check{"bubblewrap", true, "builds and tests run in a sandbox"}
}

func device(path, without string) Check {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return Check{path, false, fmt.Sprintf("%v: %s", err, without)}
	}
	f.Close()
	return Check{path, true, "may be used"}
}

func space(root string) Check {
	root = cmp.Or(root, build.DefaultRoot)
	var stat syscall.Statfs_t
	if err := syscall.Statfs(root, &stat); err != nil {
		return Check{"build root", false, fmt.Sprintf("%s: %v", root, err)}
	}
	free := int64(stat.Bavail) * int64(stat.Bsize)
	return Check{"build root", free > 1<<30, fmt.Sprintf("%s has %.1f GB free", root, float64(free)/1e9)}
}
