package build

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

// Engines that build recipes for Spack.
const (
	EngineDirect      = "direct"      // ours
	EngineStackinator = "stackinator" // stackinator and its makefiles
)

// stackConfig is the program of stackinator.
const stackConfig = "stack-config"

// stackinatorDir is the directory, below that of the build, in which stackinator
// makes its own build tree.
const stackinatorDir = "stackinator"

// stackinatorBuild is a build by stackinator's makefiles. In our sandbox the store
// is at its place already, so they are told to use none of their own.
type stackinatorBuild struct {
	*job
	program string // stack-config
	python  string // that runs it
	version string
	done    int // packages that are installed
	seconds map[string]float64
	cached  map[string]bool
}

func (j *job) buildStackinator(ctx context.Context) error {
	if slices.ContainsFunc(j.tree.Copies, func(c stack.Copy) bool { return len(c.Secrets) > 0 }) {
		err := fault.New(fault.Refused, "stackinator would put the credentials of the recipe's addresses into the image")
		return fault.WithHint(err, "leave them to git's own configuration, such as a credential helper")
	}
	b := &stackinatorBuild{job: j, seconds: map[string]float64{}, cached: map[string]bool{}}
	if err := j.stage("stackinator", func() error { return b.setUp(ctx) }); err != nil {
		return err
	}
	if err := j.stageTries("configure", twice, func() error { return b.configure(ctx) }); err != nil {
		return err
	}
	if err := j.stageTries("make", twice, func() error { return b.make(ctx) }); err != nil {
		return err
	}
	return j.stage("metadata", b.describe)
}

// setUp finds the program and makes it visible with its Python, and the inputs.
func (b *stackinatorBuild) setUp(ctx context.Context) (err error) {
	if b.program, err = locateStackinator(b.Stackinator); err != nil {
		return err
	}
	if b.python, err = interpreter(b.program); err != nil {
		return err
	}
	const script = "import sys, os, stackinator; " +
		"print(sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(os.path.abspath(stackinator.__file__))), " +
		"getattr(stackinator, 'VERSION', ''), sep='\\n')"
	out, err := proc.Cmd{Path: b.python, Args: []string{"-c", script}, Env: os.Environ(), Dir: "/"}.Output(ctx)
	about := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	if err == nil && len(about) != 4 {
		err = fmt.Errorf("it said %q", out)
	}
	if err != nil {
		return fault.WithHint(fmt.Errorf("look for stackinator in %s: %w", b.python, err),
			"install it into a virtual environment (pip install of its checkout), and name that with --stackinator")
	}
	for _, dir := range append(about[:3:3], filepath.Dir(b.program)) {
		if dir != "/usr" && dir != "/usr/bin" {
			b.cell.show(dir)
		}
	}
	b.version = about[3]
	if b.Spack != "" {
		b.Events.Warn("stackinator", "stackinator clones the Spack that the recipe names: %s is not used", b.Spack)
	}
	if len(b.secrets) > 0 {
		b.Events.Warn("stackinator", "hooks get no secrets: they are part of stackinator's makefiles")
	}
	b.Events.Info("stackinator", "stackinator %s from %s", b.version, b.program)
	if b.cell.env, err = b.spackPython(ctx, b.cell.env); err != nil {
		return err
	}
	return b.provide()
}

// spackPython makes the Python visible that SPACK_PYTHON names, if it does.
func (b *stackinatorBuild) spackPython(ctx context.Context, env []string) ([]string, error) {
	python := os.Getenv(spack.PythonVariable)
	if python == "" {
		return env, nil
	}
	out, err := proc.Cmd{Path: python, Args: []string{"-c", "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"}, Env: os.Environ()}.Output(ctx)
	if err != nil {
		return nil, fmt.Errorf("run %s, the Python for Spack: %w", python, err)
	}
	for prefix := range strings.Lines(string(out)) {
		if prefix = strings.TrimSpace(prefix); prefix != "/usr" && prefix != "" {
			b.cell.show(prefix)
		}
	}
	return append(env, spack.PythonVariable+"="+python), nil
}

// provide puts the recipe, with its links followed, and the cluster configuration
// where programs see them. The store has to be empty for stackinator.
func (b *stackinatorBuild) provide() error {
	recipe := filepath.Join(filepath.Dir(b.cell.host), "recipe")
	if err := os.Rename(b.cell.path("store/meta/recipe"), recipe); err != nil {
		return err
	}
	if err := clearDir(b.cell.stored); err != nil {
		return err
	}
	if _, err := b.cell.put(recipe, "recipe"); err != nil {
		return err
	}
	_, err := b.cell.put(b.Stack.Cluster.Dir, "cluster")
	return err
}

func clearDir(dir foreign) error {
	entries, err := fs.ReadDir(dir.FS(), ".")
	for _, e := range entries {
		err = errors.Join(err, dir.RemoveAll(e.Name()))
	}
	return err
}

// checkEngine refuses what an engine cannot do.
func (o *Options) checkEngine() error {
	switch {
	case o.Engine != "" && o.Engine != EngineDirect && o.Engine != EngineStackinator:
		return fault.New(fault.Usage, "there is no engine %q: %s, %s", o.Engine, EngineDirect, EngineStackinator)
	case o.Engine != EngineStackinator && o.Stackinator != "":
		return fault.WithHint(fault.New(fault.Usage, "%s is named, and the engine is not stackinator", o.Stackinator), "add --engine stackinator")
	case o.Engine != EngineStackinator || o.script():
		return nil
	case o.NoSandbox:
		return fault.New(fault.Usage, "the engine stackinator builds in the sandbox only")
	case o.Stack.Mirrors != nil || o.ChangeCache != nil:
		return fault.WithHint(fault.New(fault.Usage, "the engine stackinator uses no build caches here: its makefiles would need the keys in the sandbox"),
			"leave --mirrors and --change-cache out, or use the direct engine")
	case o.SourceCache != "":
		return fault.WithHint(fault.New(fault.Usage, "the engine stackinator uses no source cache: what it tells Spack is up to its makefiles"),
			"leave --source-cache out, or use the direct engine")
	case o.AirGapped:
		return fault.WithHint(fault.New(fault.Usage, "the engine stackinator cannot list the sources that are missing, as --air-gapped does"),
			"--offline keeps all of it off the network, hooks too")
	case o.Offline && o.Network:
		return fault.WithHint(fault.New(fault.Usage, "the engine stackinator cannot give hooks alone a network: they are part of its makefiles"),
			"leave one of --offline and --hook-network out")
	case o.StrictViews:
		return fault.WithHint(fault.New(fault.Usage, "the engine stackinator makes views without checking what packages have in common"),
			"leave --strict-views out, or use the direct engine")
	}
	return nil
}

// locateStackinator returns stack-config: the file named, the one in a directory
// or its bin, or the one on PATH.
func locateStackinator(named string) (string, error) {
	if named == "" {
		if program, ok := proc.Look(stackConfig); ok {
			return filepath.Abs(program)
		}
		return "", fault.WithHint(fault.New(fault.NotFound, "there is no %s on PATH", stackConfig), "install stackinator, or name it with --stackinator")
	}
	for _, file := range []string{named, filepath.Join(named, "bin", stackConfig), filepath.Join(named, stackConfig)} {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return filepath.Abs(file)
		}
	}
	return "", fault.New(fault.NotFound, "%s is not %s, nor a directory that has it", named, stackConfig)
}

// interpreter returns the Python that runs stack-config: that of the virtual
// environment that it is installed in, else the one that its first line names. A
// checkout's first line names uv, which would fetch what it needs, as it runs.
func interpreter(program string) (string, error) {
	for _, name := range []string{"python3", "python"} {
		beside := filepath.Join(filepath.Dir(program), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	f, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 512)).ReadString('\n')
	words := strings.Fields(strings.TrimPrefix(line, "#!"))
	if err == nil && strings.HasPrefix(line, "#!") && len(words) == 1 && strings.HasPrefix(path.Base(words[0]), "python") {
		return words[0], nil
	}
	return "", fault.WithHint(fault.New(fault.Invalid, "there is no Python beside %s, and its first line names none", program),
		"install stackinator into a virtual environment, and name that with --stackinator")
}

// configure lets stackinator clone Spack and write its build tree.
func (b *stackinatorBuild) configure(ctx context.Context) error {
	if err := os.RemoveAll(b.cell.path(stackinatorDir)); err != nil {
		return err
	}
	if err := os.Mkdir(b.cell.path(stackinatorDir), 0o755); err != nil {
		return err
	}
	args := []string{
		b.program, "-b", b.cell.inside(stackinatorDir), "-r", b.cell.inside("recipe"), "-s", b.cell.inside("cluster"), "-m", b.mount(), "--no-bwrap",
	}
	if b.Stack.Develop {
		args = append(args, "--develop")
	}
	// Its log file has a random name in the working directory.
	s := step{name: "configure", network: !b.Offline, cmd: proc.Cmd{Path: b.python, Args: args, Dir: "/tmp"}}
	s.cmd.Env = []string{"CLUSTER_NAME=" + b.System}
	return b.explain(ctx, classOther, b.cell.run(ctx, s))
}

// make runs the makefiles, up to the image, which we make ourselves.
func (b *stackinatorBuild) make(ctx context.Context) error {
	dir := b.cell.inside(stackinatorDir)
	jobs := strconv.Itoa(b.jobs())
	s := step{name: "make", network: !b.Offline, watch: b.watch(), cmd: proc.Cmd{
		Path: "/usr/bin/make", Dir: dir, Args: []string{"post-install", "-j" + jobs, "NJOBS=" + jobs, "SPACK_COLOR=never"},
		Env: []string{"PATH=/usr/bin:/bin:" + dir + "/spack/bin"},
	}}
	return b.explain(ctx, classSpack, b.cell.run(ctx, s))
}

var colors = regexp.MustCompile("\x1b\\[[0-9;]*m")

// watch returns a function that follows the output of the makefiles.
func (b *stackinatorBuild) watch() func(string) {
	var w spack.InstallWatcher
	return func(line string) {
		switch e := w.Line(colors.ReplaceAllString(line, "")); e.Kind {
		case spack.Installing:
			b.Events.Info("make", "%s", e.Package)
		case spack.Extracting:
			b.cached[e.Hash] = true
		case spack.Installed:
			b.done++
			b.seconds[e.Hash] = e.Seconds
			b.Events.Progress("make", int64(b.done), 0, "packages")
		}
	}
}

// describe reads what was built, and makes what stackinator says of it in the image
// the same for every build.
func (b *stackinatorBuild) describe() error {
	text, err := b.cell.stored.read(spack.DatabaseFile)
	if err != nil {
		return fmt.Errorf("read what was installed: %w", err)
	}
	installed, err := spack.ParseDatabase(text)
	if err != nil {
		return err
	}
	for _, s := range installed {
		b.report.Packages = append(b.report.Packages, Package{
			Name: s.Name, Version: s.Version, Hash: s.Hash, External: s.External, Seconds: b.seconds[s.Hash], Cached: b.cached[s.Hash],
		})
	}
	sortPackages(b.report.Packages)
	return b.configuration()
}

// configuration reads which Spack it was from meta/configure.json, and takes from
// that what tells of this one build: our own file has constants there.
func (b *stackinatorBuild) configuration() error {
	const file = "meta/configure.json"
	text, err := b.cell.stored.read(file)
	if err != nil {
		return fmt.Errorf("read what stackinator says of the image: %w", err)
	}
	var theirs, ours map[string]any
	var said struct {
		Spack struct{ Repo, Commit string }
	}
	if err := errors.Join(json.Unmarshal(text, &theirs), json.Unmarshal(text, &said)); err != nil {
		return fmt.Errorf("read what stackinator says of the image: %w", err)
	}
	for _, f := range b.tree.Files {
		if f.Path == "store/"+file {
			if err := json.Unmarshal(f.Data, &ours); err != nil {
				return err
			}
		}
	}
	for _, key := range []string{"time", "host", "stackinator", "cluster"} {
		if value, ok := ours[key]; ok {
			theirs[key] = value
		}
	}
	if b.report.Spack, err = b.spackUsed(); err != nil {
		return err
	}
	if text, err = json.MarshalIndent(theirs, "", "  "); err != nil {
		return err
	}
	return b.cell.stored.write(file, append(text, '\n'), 0o644)
}

var spackVersion = regexp.MustCompile(`(?m)^(?:spack_version|__version__) *= *['"]([0-9a-z.]+)['"]`)

// spackUsed tells of the Spack that stackinator has cloned, by what it says itself.
func (b *stackinatorBuild) spackUsed() (*Spack, error) {
	text, err := b.cell.files.read(path.Join(stackinatorDir, "spack/lib/spack/spack/__init__.py"))
	if err != nil {
		return nil, fmt.Errorf("read which Spack it was: %w", err)
	}
	used := &Spack{Source: git.WithoutCredentials(b.Stack.Recipe.Spack.Repo)}
	if m := spackVersion.FindSubmatch(text); m != nil {
		used.Version = string(m[1])
	}
	env, err := b.env()
	if err != nil {
		return nil, err
	}
	if v, ok := env.Views["spack"]; ok {
		if commit := v.Env.Values.Scalar["UENV_SPACK_COMMIT"]; commit != nil && git.IsCommit(*commit) {
			used.Commit = *commit
		}
	}
	return used, nil
}
