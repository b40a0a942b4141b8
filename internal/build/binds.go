package build

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"uenv-ci.dev/internal/sandbox"
)

// What programs can write to below the build directory. All other entries are
// ours: read-only, and as we wrote them.
var (
	// programDirs are for all programs. A Spack of this machine is covered by one
	// that is read-only; a clone is of this build only, and hooks may patch it.
	programDirs = []string{"store", "tmp", "cache", "user", "spack", stackinatorDir}
	// spackDirs are for Spack only: environments, which we write before it and
	// read after it, its keyring, and the packages that it hands over to a build
	// cache.
	spackDirs = []string{"compilers", "env", "environments", "gnupg", stagingMirror}
)

// buildBinds returns what makes the build directory in a sandbox: a directory of
// its own, which we never look at, for what hooks and packages leave beside their
// working directory, covered by the entries of the build directory of the host one
// by one. That one itself is in no sandbox, so nothing in it can be replaced; nor
// can what is bound, as long as the sandbox is there.
func (c *cell) buildBinds(spack bool) ([]sandbox.Bind, error) {
	entries, err := os.ReadDir(c.host)
	if err != nil {
		return nil, err
	}
	scratch, err := os.OpenRoot(c.scratch())
	if err != nil {
		return nil, err
	}
	defer scratch.Close()
	binds := []sandbox.Bind{{Source: c.scratch(), Target: c.Build, Writable: true}}
	for _, e := range entries {
		name := e.Name()
		// Entries are made before programs could take their names, but for a few.
		if info, err := scratch.Lstat(name); err == nil && info.Mode().Type() == fs.ModeSymlink {
			if err := scratch.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		writable := slices.Contains(programDirs, name) || spack && slices.Contains(spackDirs, name)
		binds = append(binds, sandbox.Bind{Source: c.path(name), Target: c.inside(name), Writable: writable})
	}
	return binds, nil
}

// scratch returns the directory of the host that is below the entries of the
// build directory.
func (c *cell) scratch() string { return filepath.Join(filepath.Dir(c.host), "scratch") }
