package build

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/spack"
)

// systemPython is what Spack runs with unless told otherwise: the first one on
// the PATH of a build.
const systemPython = "/usr/bin/python3"

// python returns the variables that choose the Python of Spack, and makes it
// visible, wherever it is.
func (b *spackBuild) python(ctx context.Context) (env []string, err error) {
	python, chosen := os.LookupEnv(spack.PythonVariable)
	if !chosen || python == "" {
		if _, err := os.Stat(systemPython); err != nil {
			return nil, nil // Spack will say what it lacks
		}
		python = systemPython
	}
	const script = "import sys; print(sys.executable, sys.prefix, sys.base_prefix, sys.implementation.cache_tag, sep='\\n')"
	out, err := proc.Cmd{Path: python, Args: []string{"-c", script}, Env: os.Environ()}.Output(ctx)
	about := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err == nil && len(about) != 4 {
		err = fmt.Errorf("it said %q", out)
	}
	if err != nil {
		return nil, fmt.Errorf("run %s, the Python for Spack: %w", python, err)
	}
	for _, prefix := range about[1:3] {
		if prefix != "/usr" {
			b.cell.show(prefix)
		}
	}
	python = about[0]
	if !b.hasByteCode(about[3]) {
		if python, err = b.cachingPython(python); err != nil {
			return nil, err
		}
	}
	return []string{spack.PythonVariable + "=" + python}, nil
}

// hasByteCode tells whether Spack is there as byte code of a version of Python.
func (b *spackBuild) hasByteCode(tag string) bool {
	_, err := os.Stat(filepath.Join(b.spackDir, "lib/spack/spack/__pycache__/__init__."+tag+".pyc"))
	return err == nil
}

// cachingPython returns a program that runs a Python with a place for byte code.
// Where Spack is read-only and has none, each of its commands would compile all
// of it again, for seconds. An option is not inherited, as a variable would be,
// by the Pythons of packages, whose byte code belongs to what they install.
func (b *spackBuild) cachingPython(python string) (string, error) {
	text := fmt.Sprintf("#!/bin/sh\nexec '%s' -X pycache_prefix='%s' \"$@\"\n", python, b.cell.inside("cache/bytecode"))
	file := path.Join(engineScope, "python")
	return b.cell.inside(file), b.cell.files.write(file, []byte(text), 0o755)
}
