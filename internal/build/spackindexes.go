package build

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"uenv-ci.dev/internal/atomicfile"
)

// indexDir is the directory of a source cache that has what Spack finds out of its own
// packages, by the commit of Spack: half a minute with all of them, at every build.
const indexDir = "_spack-index"

// indexFiles are those of Spack's cache, below the build directory, that tell of its
// own packages. Each is the same for all builds with a commit.
var indexFiles = []string{"providers/builtin-index.json", "tags/builtin-index.json", "patches/builtin-index.json"}

const spackCache = "cache/cache"

// makeIndexes is a statement for Spack's Python: asked for one index it makes all.
const makeIndexes = `import spack.repo; spack.repo.PATH.get_repo("builtin").index["tags"]`

// useIndexes gives a copy of the indexes to the build. If there are none a build that
// is protected makes them, before there is a program or a package of the recipe that
// could have a hand in it; others do not write what protected builds believe.
func (b *spackBuild) useIndexes(ctx context.Context) error {
	if b.SourceCache == "" || b.spack.Commit == "" || b.dirty || isNew(b.spack.Version) {
		return nil
	}
	dir := filepath.Join(b.SourceCache, indexDir, b.spack.Commit)
	if b.copyIndexes(dir) || !b.Protected {
		return nil
	}
	return b.stage("index", func() error {
		alone := b.cell.inside(engineScope, "none")
		s := step{name: "index"}
		s.cmd.Env = []string{"SPACK_SYSTEM_CONFIG_PATH=" + alone, "SPACK_USER_CONFIG_PATH=" + alone}
		err := b.run(ctx, s, "python", "-c", makeIndexes)
		if err == nil {
			err = b.saveIndexes(dir)
		}
		if err != nil && ctx.Err() == nil {
			b.Events.Warn("index", "the source cache does not have Spack's indexes: %v", err)
			return nil // builds make them as they go
		}
		return err
	})
}

// copyIndexes tells whether it found all of the indexes.
func (b *spackBuild) copyIndexes(dir string) bool {
	for _, name := range indexFiles {
		text, err := readOwn(filepath.Join(dir, name))
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				b.Events.Warn("index", "Spack's indexes are not used: %v", err)
			}
			return false
		}
		if err := b.cell.files.write(path.Join(spackCache, name), text, 0o644); err != nil {
			return false
		}
	}
	return true
}

// readOwn reads a file that nobody but us, or root, can have written.
func readOwn(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || owner != 0 && owner != os.Getuid() {
		return nil, errors.New(file + " may have been written by others")
	}
	return io.ReadAll(io.LimitReader(f, maxForeign))
}

func (b *spackBuild) saveIndexes(dir string) error {
	for _, name := range indexFiles {
		text, err := b.cell.files.read(path.Join(spackCache, name))
		if err != nil {
			return err
		}
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := atomicfile.WriteBytes(file, 0o644, text); err != nil {
			return err
		}
	}
	return nil
}
