package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// compiler is one that a build uses: the cluster's, or built before.
type compiler struct {
	name, version string       // as in compilers.yaml
	entry         *yamlpos.Map // there
	cluster       bool         // the cluster configuration has the entry already
}

// builtCompiler is a compiler that an environment of the build offers.
type builtCompiler struct {
	environment, pkg string
	compiler
}

// roles are the keys of a compiler's paths in compilers.yaml, in the order in
// which links to them are made.
var roles = []string{"cc", "cxx", "f77", "fc"}

// paths returns the executables of a compiler by role.
func (c compiler) paths() map[string]string {
	found := map[string]string{}
	value, _ := c.entry.Get("paths")
	paths, _ := value.(*yamlpos.Map)
	for _, role := range roles {
		if path, ok := paths.Get(role); ok {
			if s, ok := path.(string); ok {
				found[role] = s
			}
		}
	}
	return found
}

// toolbox knows the compilers of a build.
type toolbox struct {
	cluster   []compiler
	externals map[string][]external // of packages that may not be built, by name
	built     []builtCompiler
}

// external is a package of the system.
type external struct{ version, prefix string }

// readToolbox reads what the configuration says of compilers.
func readToolbox(config string) (*toolbox, error) {
	t := &toolbox{externals: map[string][]external{}}
	packages, err := loadYAML(filepath.Join(config, "packages.yaml"))
	if err != nil {
		return nil, err
	}
	if packages = packages.Get("packages"); packages != nil {
		for _, p := range packages.Pairs {
			if name, ok := p.Key.Str(); ok {
				t.addExternals(name, p.Value)
			}
		}
	}
	compilers, err := loadYAML(filepath.Join(config, "compilers.yaml"))
	if err != nil {
		return nil, err
	}
	if compilers = compilers.Get("compilers"); compilers != nil {
		for _, item := range compilers.Items {
			entry, _ := item.Get("compiler").Data().(*yamlpos.Map)
			spec, _ := item.Get("compiler").Get("spec").Str()
			name, version, _ := cutSpec(spec)
			t.cluster = append(t.cluster, compiler{name, strings.TrimPrefix(version, "="), entry, true})
		}
	}
	return t, nil
}

// loadYAML reads a file that may be missing.
func loadYAML(file string) (*yamlpos.Node, error) {
	node, err := yamlpos.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return node, err
}

func (t *toolbox) addExternals(name string, entry *yamlpos.Node) {
	buildable := entry.Get("buildable")
	list := entry.Get("externals")
	if buildable == nil || buildable.Value != false || list == nil {
		return
	}
	for _, item := range list.Items {
		spec, _ := item.Get("spec").Str()
		prefix, _ := item.Get("prefix").Str()
		_, version, _ := cutSpec(spec)
		t.externals[name] = append(t.externals[name], external{strings.TrimPrefix(version, "="), prefix})
	}
}

// satisfies tells whether a version is one that a spec asks for: 12.2.0 is a 12.2.
func satisfies(version, wanted string) bool {
	if exact, ok := strings.CutPrefix(wanted, "="); ok {
		return version == exact
	}
	return wanted == "" || version == wanted || strings.HasPrefix(version, wanted+".")
}

// external returns the package of the system that a spec stands for, if it can
// be no other one.
func (t *toolbox) external(spec string) (external, bool) {
	name, version, _ := cutSpec(spec)
	i := slices.IndexFunc(t.externals[name], func(e external) bool { return satisfies(e.version, version) })
	if i < 0 {
		return external{}, false
	}
	return t.externals[name][i], true
}

// compilerNames are the names of compilers whose packages are called otherwise.
var compilerNames = map[string]string{"llvm": "clang"}

// executables are the programs of a compiler's package by role. The first
// name that exists counts.
var executables = map[string]map[string][]string{
	"gcc":   {"cc": {"gcc"}, "cxx": {"g++"}, "f77": {"gfortran"}, "fc": {"gfortran"}},
	"llvm":  {"cc": {"clang"}, "cxx": {"clang++"}, "f77": {"flang", "flang-new"}, "fc": {"flang", "flang-new"}},
	"nvhpc": {"cc": {"nvc"}, "cxx": {"nvc++"}, "f77": {"nvfortran"}, "fc": {"nvfortran"}},
}

// describe makes the entry in compilers.yaml for a package at a prefix. find
// returns the path of a program of that package, "" if there is none.
func (t *toolbox) describe(name, version string, find func(program string) string) (compiler, error) {
	compilerName := name
	if other, ok := compilerNames[name]; ok {
		compilerName = other
	}
	i := slices.IndexFunc(t.cluster, func(c compiler) bool { return c.name == compilerName && c.version == version })
	if i >= 0 {
		return t.cluster[i], nil
	}
	if len(t.cluster) == 0 {
		return compiler{}, fault.New(fault.Invalid, "the cluster configuration names no compiler in compilers.yaml")
	}
	programs, ok := executables[name]
	if !ok {
		return compiler{}, fault.New(fault.Invalid, "%s is not known as a compiler", name)
	}
	paths := &yamlpos.Map{}
	for _, role := range roles {
		paths.Set(role, nil)
		for _, program := range programs[role] {
			if path := find(program); path != "" {
				paths.Set(role, path)
				break
			}
		}
	}
	if cc, _ := paths.Get("cc"); cc == nil {
		return compiler{}, fault.New(fault.Failure, "%s@%s has no program %s", name, version, programs["cc"][0])
	}
	system, _ := t.cluster[0].entry.Get("operating_system")
	target, _ := t.cluster[0].entry.Get("target")
	return compiler{name: compilerName, version: version, entry: yamlpos.NewMap(
		"spec", compilerName+"@="+version, "paths", paths, "flags", &yamlpos.Map{},
		"operating_system", system, "target", target,
		"modules", []any{}, "environment", &yamlpos.Map{}, "extra_rpaths", []any{},
	)}, nil
}

// get returns the compiler that an environment was told to use.
func (t *toolbox) get(c stack.Compiler) (compiler, error) {
	_, version, _ := cutSpec(c.Spec)
	for _, b := range t.built {
		if b.environment == c.Environment && b.pkg == c.Package && satisfies(b.version, version) {
			return b.compiler, nil
		}
	}
	return compiler{}, fault.New(fault.Invalid, "the compiler %s is not among those of the toolchain %s", c.Spec, c.Environment)
}

// compilerEnvironment builds compilers, unless all are those of the system.
func (b *spackBuild) compilerEnvironment(ctx context.Context, env environment) error {
	// The upstream tool builds its own mksquashfs here; we pack ourselves.
	env.dropSpecs("squashfs")
	if b.allExternal(env) {
		b.Events.Info("compilers", "%s: %s of the system", env.Name, strings.Join(env.Specs, ", "))
		return nil
	}
	if err := b.install(ctx, env); err != nil {
		return err
	}
	return b.stage("find "+env.Name, func() error { return b.findCompilers(env) })
}

// allExternal notes the compilers of an environment if the system has them all.
func (b *spackBuild) allExternal(env environment) bool {
	var found []builtCompiler
	for _, spec := range env.Specs {
		e, ok := b.compilers.external(spec)
		if !ok {
			return false
		}
		c, err := b.compilers.describe(packageOf(spec), e.version, programIn(e.prefix, os.Stat))
		if err != nil {
			return false
		}
		found = append(found, builtCompiler{env.Name, packageOf(spec), c})
	}
	b.compilers.built = append(b.compilers.built, found...)
	return true
}

// programIn returns a function that finds programs below a prefix.
func programIn(prefix string, stat func(string) (fs.FileInfo, error)) func(string) string {
	return func(program string) string {
		path := filepath.Join(prefix, "bin", program)
		if info, err := stat(path); err != nil || info.Mode()&0o111 == 0 {
			return ""
		}
		return path
	}
}

// findCompilers notes the compilers that an environment has installed.
func (b *spackBuild) findCompilers(env environment) error {
	lock, err := b.readLock(env)
	if err != nil {
		return err
	}
	database, err := b.cell.stored.read(spack.DatabaseFile)
	if err != nil {
		return err
	}
	installed, err := spack.ParseDatabase(database)
	if err != nil {
		return err
	}
	for _, root := range lock.Roots {
		i := slices.IndexFunc(installed, func(s spack.Spec) bool { return s.Hash == root.Hash })
		if i < 0 {
			return fmt.Errorf("%s is not installed", root.Spec)
		}
		s := installed[i]
		find := b.programBelow(s.Prefix)
		if s.External {
			find = programIn(s.Prefix, os.Stat)
		}
		c, err := b.compilers.describe(s.Name, s.Version, find)
		if err != nil {
			return err
		}
		b.compilers.built = append(b.compilers.built, builtCompiler{env.Name, s.Name, c})
	}
	return nil
}

// programBelow returns a function that finds a program in a directory bin
// anywhere below a prefix, the least deep one: nvhpc keeps its own far down.
func (b *spackBuild) programBelow(prefix string) func(string) string {
	return func(program string) string {
		direct := programIn(prefix, func(path string) (fs.FileInfo, error) {
			name, ok := locate(b.cell.stored, b.mount(), path)
			if !ok {
				return nil, fs.ErrNotExist
			}
			return b.cell.stored.Lstat(name)
		})(program)
		if direct != "" {
			return direct
		}
		top, ok := locate(b.cell.stored, b.mount(), prefix)
		if !ok {
			return ""
		}
		best := ""
		fs.WalkDir(b.cell.stored.FS(), top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() != program || filepath.Base(filepath.Dir(path)) != "bin" {
				return nil
			}
			if depth(path) < depth(best) || best == "" {
				best = path
			}
			return nil
		})
		if best == "" {
			return ""
		}
		return filepath.Join(prefix, strings.TrimPrefix(best, top))
	}
}

func depth(path string) int { return strings.Count(path, "/") }

// writeCompilers writes a compilers.yaml below the build directory, with those of
// the named compilers that the cluster configuration does not have: Spack refuses
// to know one twice.
func (b *spackBuild) writeCompilers(file string, named []stack.Compiler, withCluster bool) error {
	list := []any{}
	for _, name := range named {
		c, err := b.compilers.get(name)
		if err != nil {
			return err
		}
		if withCluster || !c.cluster {
			list = append(list, yamlpos.NewMap("compiler", c.entry))
		}
	}
	return b.writeYAML(file, yamlpos.NewMap("compilers", list))
}
