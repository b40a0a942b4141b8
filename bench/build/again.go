package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// again builds a stack of packages that take their time, and again after the one on
// top has changed, with a build cache that has the others.
func (b *bench) again(ctx context.Context) error {
	var cold, warm []cost
	var cluster string
	for round := range b.rounds {
		dir := filepath.Join(b.dir, fmt.Sprint("again-", round))
		if err := os.MkdirAll(filepath.Join(dir, "cache"), 0o755); err != nil {
			return err
		}
		var err error
		if _, cluster, err = demoInputs(".", dir, b.prefix); err != nil {
			return err
		}
		cache := filepath.Join(dir, "cache.yaml")
		if err := os.WriteFile(cache, []byte("root: "+filepath.Join(dir, "cache")+"\nkey: null\n"), 0o644); err != nil {
			return err
		}
		recipe := filepath.Join(dir, "work")
		for _, step := range []struct {
			top   string
			costs *[]cost
		}{{"1.0", &cold}, {"1.1", &warm}} {
			if err := b.workRecipe(recipe, step.top); err != nil {
				return err
			}
			c, err := b.direct(ctx, "work", recipe, cluster, "--mirrors", cache)
			if err != nil {
				return err
			}
			*step.costs = append(*step.costs, c)
		}
	}
	head(fmt.Sprintf("%d packages of about %d s each", b.packages, b.seconds))
	show("cold, into a build cache", cold, nil)
	show("again, the top package changed (aim: 0.3)", warm, cold)
	return nil
}

// processes builds the same stack by one process of Spack, and by as many as the engine
// chooses for the processors. Its packages compile one file each, so that one process
// has no use for more than one processor.
func (b *bench) processes(ctx context.Context) error {
	_, cluster, err := demoInputs(".", b.dir, b.prefix)
	if err != nil {
		return err
	}
	recipe := filepath.Join(b.dir, "work")
	if err := b.workRecipe(recipe, "1.0"); err != nil {
		return err
	}
	var one, several []cost
	for range b.rounds {
		for _, way := range []struct {
			costs *[]cost
			args  []string
		}{{&one, []string{"--jobs", "1"}}, {&several, nil}} {
			c, err := b.direct(ctx, "work", recipe, cluster, way.args...)
			if err != nil {
				return err
			}
			*way.costs = append(*way.costs, c)
		}
	}
	head(fmt.Sprintf("%d packages of about %d s each, %d processors", b.packages, b.seconds, runtime.NumCPU()))
	show("one process of Spack", one, nil)
	show("several", several, one)
	return nil
}

// workRecipe writes a recipe of packages that compile for some seconds, of which
// the last needs all others and has a version of its own.
func (b *bench) workRecipe(dir, top string) error {
	files := map[string]string{
		"config.yaml":       "name: work\nversion: 1\nstore: /user-environment\nspack:\n  repo: https://github.com/spack/spack.git\n  commit: v0.23.0\n",
		"compilers.yaml":    "bootstrap:\n  spec: gcc@12.2\ngcc:\n  specs: [gcc@12.2]\n",
		"environments.yaml": "work:\n  compiler:\n  - toolchain: gcc\n    spec: gcc@12.2\n  unify: true\n  specs: [work-top]\n  views:\n    default: {}\n",
	}
	var needs strings.Builder
	for i := range b.packages - 1 {
		name := fmt.Sprint("work-", i)
		fmt.Fprintf(&needs, "    depends_on(%q)\n", name)
		files["repo/packages/"+name+"/package.py"] = b.workPackage(fmt.Sprint("Work", i), "1.0", "")
	}
	files["repo/packages/work-top/package.py"] = b.workPackage("WorkTop", top, needs.String())
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// functionsPerSecond is how many of the functions of a package a compiler of our
// days makes in a second, about.
const functionsPerSecond = 250

func (b *bench) workPackage(class, version, needs string) string {
	return fmt.Sprintf(`from spack.package import *


class %s(Package):
    """Something to compile."""

    homepage = "https://uenv-ci.dev"
    has_code = False

    version(%q)

%s
    def install(self, spec, prefix):
        with open("work.c", "w") as f:
            for i in range(%d):
                f.write(f"double f{i}(double *a, int n) {{ double s = {i}; for (int j = 0; j < n; j++) s += a[j] * {i} / (s + j); return s; }}\n")
        mkdirp(prefix.lib)
        Executable(self.compiler.cc)("-O2", "-shared", "-fPIC", "-o", prefix.lib.join("lib%s.so"), "work.c")
`, class, version, needs, b.seconds*functionsPerSecond, strings.ToLower(class))
}
