package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

// flow does what the makefiles do that stackinator's branches put into a build tree:
// the same commands of Spack, in the same order and in sandboxes made the same way.
// Those for formats 2 and 3 are for Spack 1.x; where that does the same by another
// command than Spack 0.23, it is the latter's here. GNU make itself runs only what `spack env depfile`
// generates; that it evaluates its graph several times, and some queries of Spack
// with it, is left out in favour of the other side.
type flow struct {
	tree  *stack.Tree
	dir   string // BUILD, neither below /tmp nor HOME, which sandboxes cover
	spack string // a Spack checkout
	jobs  int
	log   *os.File
}

// newFlow writes a build tree and makes it ready for run.
func newFlow(in stack.Input, dir, spackDir string, jobs int, log *os.File) (*flow, error) {
	in.BuildDir = dir
	tree, _, err := stack.Render(in)
	if err != nil {
		return nil, err
	}
	if err := tree.Write(dir); err != nil {
		return nil, err
	}
	for _, sub := range []string{"tmp", "cache", "store"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	f := &flow{tree, dir, spackDir, jobs, log}
	return f, errors.Join(os.Symlink(spackDir, filepath.Join(dir, "spack")), f.clone())
}

// clone takes the packages of repositories beside Spack from their default branch.
func (f *flow) clone() error {
	for _, c := range f.tree.Clones[1:] {
		script := fmt.Sprintf("git clone -q %s %s/%s && cp -r %s/%s/%s %s/%s", c.Repo, f.dir, c.To, f.dir, c.To, c.CopyPath, f.dir, c.CopyTo)
		if err := (proc.Cmd{Path: "/bin/sh", Args: []string{"-ec", script}, Env: os.Environ(), Stdout: f.log, Stderr: f.log}).Run(context.Background()); err != nil {
			return fmt.Errorf("clone %s: %w", c.Name, err)
		}
	}
	return nil
}

// run builds the store.
func (f *flow) run(ctx context.Context) error {
	checks := []string{"spack --version", "spack arch", "spack --version", "spack -d spec zlib"}
	if f.tree.Version > 1 {
		checks = []string{"spack --version", "spack arch", "spack --version", "spack -d bootstrap now", "spack mirror list"}
	}
	for _, check := range checks {
		if err := f.sandboxed(ctx, check); err != nil {
			return err
		}
	}
	if err := f.hook(ctx, f.tree.Hooks.PreInstall); err != nil {
		return err
	}
	for _, kind := range []stack.Kind{stack.KindCompiler, stack.KindEnvironment} {
		var script strings.Builder
		for _, env := range f.tree.Environments {
			if env.Kind == kind {
				script.WriteString(f.environment(env))
			}
		}
		if err := f.sandboxed(ctx, script.String()); err != nil {
			return err
		}
	}
	if err := f.cleanUp(ctx); err != nil {
		return err
	}
	for _, env := range f.tree.Environments {
		for _, v := range env.Views {
			if err := f.view(env, v); err != nil {
				return fmt.Errorf("view %s: %w", v.Name, err)
			}
		}
	}
	if err := f.sandboxed(ctx, f.generateConfig()); err != nil {
		return err
	}
	for _, kind := range f.tree.Modules.Types {
		refresh := fmt.Sprintf("spack -C %s/modules module %s refresh --upstream-modules --delete-tree --yes-to-all", f.dir, kind)
		if err := f.sandboxed(ctx, refresh); err != nil {
			return err
		}
	}
	return f.hook(ctx, f.tree.Hooks.PostInstall)
}

// cleanUp is what format 3 does between installing and views.
func (f *flow) cleanUp(ctx context.Context) error {
	if f.tree.Version != 3 {
		return nil
	}
	gc := "spack gc --yes-to-all"
	if f.tree.Cleanup == "build" {
		gc += " --keep-build-dependencies"
	}
	var activate strings.Builder
	for _, env := range f.tree.Environments {
		gc += " --except-environment " + filepath.Join(f.dir, env.Dir)
		for _, v := range env.Views {
			fmt.Fprintf(&activate, "mkdir -p %s\n", v.Root)
		}
		activate.WriteString(f.activate(env))
	}
	if f.tree.Cleanup == "none" {
		gc = ":"
	}
	return f.sandboxed(ctx, gc, activate.String())
}

// pack makes the image, with the mksquashfs that the flow has built or found.
func (f *flow) pack(ctx context.Context, image string) error {
	return f.sandboxed(ctx, fmt.Sprintf(`
find %[1]s/repo -type d -name __pycache__ -exec rm -r {} +
chmod -R a+rX %[1]s
`, f.tree.Mount), fmt.Sprintf(`
prefix=$(spack -e %s/compilers/bootstrap find --format='{prefix}' squashfs | head -n 1)
env -u SOURCE_DATE_EPOCH "$prefix/bin/mksquashfs" %s %s -force-uid 65534 -force-gid 65534 \
  -all-time $(date +%%s) -no-recovery -noappend -Xcompression-level 3 -comp zstd`, f.dir, f.tree.Mount, image))
}

// helpers are shell functions for the scripts: the directories with compilers
// below prefixes, as GNU make computes them.
const helpers = `
bin_dirs() {
  find "$@" '(' -name gcc -o -name clang -o -name nvc ')' -path '*/bin/*' '(' -type f -o -type l ')' -exec dirname {} +
}
`

// environment returns what is run for one environment, without its views' files.
func (f *flow) environment(env stack.SpackEnvironment) string {
	var s strings.Builder
	dir := filepath.Join(f.dir, env.Dir)
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	line("cd %s", filepath.Dir(dir))
	line("export SPACK_USER_CONFIG_PATH=%s", dir)
	line("spack config --scope=user add config:install_tree:root:%s", f.tree.Mount)
	if f.tree.Version > 1 || slices.Contains(env.Include, "compilers.yaml") {
		f.findCompilers(line, env.BuiltWith)
	}
	if len(env.ExternalFind) > 0 {
		flags := ""
		if env.NotBuildable {
			flags = "--not-buildable "
		}
		line("spack external find %s--scope=user %s", flags, strings.Join(env.ExternalFind, " "))
	}
	for _, name := range env.Include {
		line("touch %s/%s", dir, name)
	}
	line("export SPACK_USER_CONFIG_PATH='~'")
	line("spack -e %s concretize -f", dir)
	if f.tree.Version == 3 {
		line("MAKEFLAGS= spack -e %s install --jobs %d", dir, f.jobs)
		return s.String() // views come when all is installed
	}
	line("spack -e %s env depfile --make-target-prefix %s/generated -o %s/Makefile", dir, env.Name, dir)
	line("make -j%d -f %s/Makefile %s/generated/env", f.jobs, dir, env.Name)
	s.WriteString(f.activate(env))
	return s.String()
}

func (f *flow) activate(env stack.SpackEnvironment) string {
	var s strings.Builder
	for _, v := range env.Views {
		fmt.Fprintf(&s, "spack env activate --with-view %s --sh %s > %s/activate.sh\n", v.SpackName, filepath.Join(f.dir, env.Dir), v.Root)
	}
	return s.String()
}

// findCompilers lets Spack find compilers that earlier environments installed.
func (f *flow) findCompilers(line func(string, ...any), compilers []stack.Compiler) {
	line("prefixes=")
	if f.tree.Version > 1 {
		for _, c := range compilers {
			if c.Environment != "" {
				line(`prefixes="$(spack -e %s/compilers/%s find --explicit --format '{prefix}' %s)"`, f.dir, c.Environment, c.Spec)
				// What 'spack compiler find' of Spack 1.x writes, in packages.yaml.
				line("spack external find --scope=user --path $(bin_dirs $prefixes) %s", c.Package)
			}
		}
		return
	}
	for _, c := range compilers {
		line(`prefixes="$prefixes $(spack -e %s/compilers/%s find --format '{prefix}' %s)"`, f.dir, c.Environment, c.Spec)
	}
	line("spack compiler find --scope=user $(bin_dirs $prefixes)")
}

// generateConfig returns what makes the configuration for users of the image.
func (f *flow) generateConfig() string {
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	if f.tree.Version > 1 {
		line("export SPACK_USER_CONFIG_PATH=%s/config", f.tree.Mount)
		line("mkdir -p %s/config", f.tree.Mount)
		for _, c := range f.tree.Config.Install {
			line("install -m 644 %s/%s %s/config/", f.dir, c.From, f.tree.Mount)
		}
		f.findCompilers(line, f.tree.Config.Compilers)
		return s.String()
	}
	for scope, compilers := range map[string][]stack.Compiler{
		f.tree.Mount + "/config": f.tree.Config.Compilers, f.dir + "/modules": f.tree.Modules.Compilers,
	} {
		line("export SPACK_USER_CONFIG_PATH=%s", scope)
		line("mkdir -p %s", scope)
		line("spack config --scope=user add upstreams:system:install_tree:%s", f.tree.Mount)
		line("prefixes=")
		seen := map[string]bool{}
		for _, c := range compilers {
			if !seen[c.Environment] {
				seen[c.Environment] = true
				line(`prefixes="$prefixes $(spack -e %s/compilers/%s find --format='{prefix}' gcc llvm nvhpc || :)"`, f.dir, c.Environment)
			}
		}
		line("spack compiler find --scope=user $(bin_dirs $prefixes)")
	}
	for _, name := range []string{"packages.yaml", "repos.yaml"} {
		line("install -m 644 %s/config/%s %s/config/%s", f.dir, name, f.tree.Mount, name)
	}
	return s.String()
}

func (f *flow) hook(ctx context.Context, file string) error {
	if file == "" {
		return nil
	}
	return f.sandboxed(ctx, filepath.Join(f.tree.Mount, strings.TrimPrefix(file, "store/")))
}

// sandboxed runs scripts, each in a sandbox of its own.
func (f *flow) sandboxed(ctx context.Context, scripts ...string) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	var args []string
	for _, e := range entries {
		path := "/" + e.Name()
		if _, err := os.Stat(path); err == nil {
			args = append(args, "--dev-bind", path, path)
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	args = append(args, "--tmpfs", home, "--bind", f.dir+"/tmp", "/tmp", "--bind", f.dir+"/store", f.tree.Mount, "/bin/sh", "-exc")
	env := []string{
		"PATH=/usr/bin:/bin:" + f.dir + "/spack/bin", "HOME=" + home,
		"SPACK_USER_CONFIG_PATH=~", "SPACK_SYSTEM_CONFIG_PATH=" + f.dir + "/config", "SPACK_USER_CACHE_PATH=" + f.dir + "/cache",
		"SPACK_COLOR=never", "LC_ALL=C.UTF-8", "TZ=UTC", "SOURCE_DATE_EPOCH=315576060",
	}
	if python := os.Getenv(spack.PythonVariable); python != "" {
		env = append(env, spack.PythonVariable+"="+python)
	}
	for _, script := range scripts {
		c := proc.Cmd{Path: "bwrap", Args: append(args, helpers+script), Dir: f.dir, Env: env, Stdout: f.log, Stderr: f.log}
		if err := c.Run(ctx); err != nil {
			return fmt.Errorf("make flow: %w (log: %s)", err, f.log.Name())
		}
	}
	return nil
}
