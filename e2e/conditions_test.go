package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registrytest"
	"uenv-ci.dev/internal/sandbox"
)

// conditions tell scripts, by [name], what is to be had on this machine. The
// error says what is missing.
var conditions = map[string]func() error{
	"bwrap":           sync.OnceValue(func() error { return sandbox.Available(context.Background()) }),
	"cc":              program("cc", "a C compiler"),
	"docker-registry": program("docker-registry", "package docker-registry"),
	"fuse":            mayUseFUSE,
	"gitlab-ci-local": program("gitlab-ci-local", "npm ci of .ci/gitlab-ci-local, with nodejs and rsync"),
	"fusermount":      program("fusermount3", "package fuse3"),
	"mksquashfs":      program("mksquashfs", "package squashfs-tools"),
	"reframe":         program("reframe", "ReFrame-HPC from PyPI"),
	"regctl":          program("regctl", "tools/go.mod"),
	"root":            isRoot,
	"slurm":           sync.OnceValue(hasSlurm),
	"spack":           hasSpack,
	"squashfuse":      hasSquashfuse,
}

// conditionOn also knows the kinds of registries: that which a script runs
// against is true.
func conditionOn(kind registrytest.Kind) func(name string) (bool, error) {
	return func(name string) (bool, error) {
		if slices.Contains(kinds, registrytest.Kind(name)) {
			return name == string(kind), nil
		}
		c, ok := conditions[name]
		if !ok {
			return false, fmt.Errorf("unknown condition %q", name)
		}
		return c() == nil, nil
	}
}

func program(name, from string) func() error {
	return func() error {
		if _, ok := proc.Look(name); !ok {
			return fmt.Errorf("no program %s on PATH (%s)", name, from)
		}
		return nil
	}
}

func isRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the tests do not run as root")
	}
	return nil
}

func hasSpack() error {
	dir := os.Getenv("UENV_CI_SPACK")
	if dir == "" {
		return errors.New("UENV_CI_SPACK names no Spack checkout")
	}
	_, err := os.Stat(dir + "/bin/spack")
	return err
}

func hasSquashfuse() error {
	if err := program("squashfuse", "package squashfuse")(); err != nil {
		return err
	}
	return mayUseFUSE()
}

func mayUseFUSE() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
