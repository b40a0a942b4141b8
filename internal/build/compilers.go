package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// compiler is one that a build uses: the cluster's, or built before.
type compiler struct {
	name, version string // as in compilers.yaml, or in packages.yaml from format 2 on
	prefix        string
	entry         *yamlpos.Map // of compilers.yaml
	cluster       bool         // the configuration of all environments has it already
}

// builtCompiler is a compiler that an environment of the build offers.
type builtCompiler struct {
	environment, pkg string
	hash             string // of a package that was built, "" if it is of the system
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
	format    int // of the recipe: from 2 on compilers are packages
	cluster   []compiler
	externals map[string][]external // of packages that may not be built, by name
	built     []builtCompiler
}

// external is a package of the system.
type external struct{ version, prefix string }

// readToolbox reads what the configuration of a build directory says of compilers.
func readToolbox(dir string, format int) (*toolbox, error) {
	t := &toolbox{format: format, externals: map[string][]external{}}
	if err := t.readPackages(filepath.Join(dir, "config", "packages.yaml"), true); err != nil {
		return nil, err
	}
	if format > 1 {
		// Format 2 has the system's gcc where gcc is built, and only there.
		return t, t.readPackages(filepath.Join(dir, "compilers", "gcc", "packages.yaml"), false)
	}
	compilers, err := loadYAML(filepath.Join(dir, "config", "compilers.yaml"))
	if err != nil {
		return nil, err
	}
	if compilers = compilers.Get("compilers"); compilers != nil {
		for _, item := range compilers.Items {
			entry, _ := item.Get("compiler").Data().(*yamlpos.Map)
			spec, _ := item.Get("compiler").Get("spec").Str()
			name, version, _ := cutSpec(spec)
			t.cluster = append(t.cluster, compiler{name: name, version: strings.TrimPrefix(version, "="), entry: entry, cluster: true})
		}
	}
	return t, nil
}

// readPackages reads from a packages.yaml which packages the system has. forAll says
// that all environments see it.
func (t *toolbox) readPackages(file string, forAll bool) error {
	packages, err := loadYAML(file)
	if err != nil {
		return err
	}
	if packages = packages.Get("packages"); packages == nil {
		return nil
	}
	for _, p := range packages.Pairs {
		name, ok := p.Key.Str()
		if !ok {
			continue
		}
		t.addExternals(name, p.Value)
		if t.format > 1 {
			t.addSystemCompilers(name, p.Value, forAll)
		}
	}
	return nil
}

// addSystemCompilers notes those externals of a package that packages.yaml declares
// as compilers.
func (t *toolbox) addSystemCompilers(name string, entry *yamlpos.Node, forAll bool) {
	list := entry.Get("externals")
	if list == nil {
		return
	}
	for _, item := range list.Items {
		programs := item.Get("extra_attributes").Get("compilers")
		if programs == nil {
			continue
		}
		spec, _ := item.Get("spec").Str()
		prefix, _ := item.Get("prefix").Str()
		_, version, _ := cutSpec(spec)
		paths := &yamlpos.Map{}
		for i, language := range []string{"c", "cxx", "fortran", "fortran"} {
			if path, ok := programs.Get(language).Str(); ok {
				paths.Set(roles[i], path)
			}
		}
		c := compiler{name: name, version: strings.TrimPrefix(version, "="), prefix: prefix, entry: yamlpos.NewMap("paths", paths), cluster: forAll}
		t.cluster = append(t.cluster, c)
		if forAll {
			t.built = append(t.built, builtCompiler{"", name, "", c})
		}
	}
}

// loadYAML reads a file that may be missing.
func loadYAML(file string) (*yamlpos.Node, error) {
	data, err := bounded.ReadFile(file, yamlpos.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return yamlpos.Parse(file, data)
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

	"llvm-amdgpu":            {"cc": {"clang"}, "cxx": {"clang++"}, "f77": {"flang-new", "flang"}, "fc": {"flang-new", "flang"}},
	"intel-oneapi-compilers": {"cc": {"icx"}, "cxx": {"icpx"}, "f77": {"ifx"}, "fc": {"ifx"}},
}

// describe makes the entry for a compiler's package at a prefix. find returns the path
// of a program of that package, "" if there is none.
func (t *toolbox) describe(name, version, prefix string, find func(program string) string) (compiler, error) {
	compilerName := name
	if other, ok := compilerNames[name]; ok && t.format == 1 {
		compilerName = other
	}
	i := slices.IndexFunc(t.cluster, func(c compiler) bool {
		// Before format 2 Spack knows a compiler once only.
		return c.name == compilerName && c.version == version && (t.format == 1 || c.prefix == prefix)
	})
	if i >= 0 {
		return t.cluster[i], nil
	}
	paths, err := findPrograms(name, version, find)
	if err != nil {
		return compiler{}, err
	}
	if t.format > 1 {
		return compiler{name: name, version: version, prefix: prefix, entry: yamlpos.NewMap("paths", paths)}, nil
	}
	if len(t.cluster) == 0 {
		return compiler{}, fault.New(fault.Invalid, "the cluster configuration names no compiler in compilers.yaml")
	}
	system, _ := t.cluster[0].entry.Get("operating_system")
	target, _ := t.cluster[0].entry.Get("target")
	return compiler{name: compilerName, version: version, prefix: prefix, entry: yamlpos.NewMap(
		"spec", compilerName+"@="+version, "paths", paths, "flags", &yamlpos.Map{},
		"operating_system", system, "target", target,
		"modules", []any{}, "environment", &yamlpos.Map{}, "extra_rpaths", []any{},
	)}, nil
}

// findPrograms returns the programs of a compiler's package by role.
func findPrograms(name, version string, find func(program string) string) (*yamlpos.Map, error) {
	programs, ok := executables[name]
	if !ok {
		return nil, fault.New(fault.Invalid, "%s is not known as a compiler", name)
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
		return nil, fault.New(fault.Failure, "%s@%s has no program %s", name, version, programs["cc"][0])
	}
	return paths, nil
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

// knows tells whether the compilers that an environment is built with are there.
func (t *toolbox) knows(compilers []stack.Compiler) bool {
	return !slices.ContainsFunc(compilers, func(c stack.Compiler) bool {
		_, err := t.get(c)
		return err != nil
	})
}

// allExternal notes the compilers of an environment if the system has them all.
func (b *spackBuild) allExternal(env environment) bool {
	var found []builtCompiler
	for _, spec := range env.Specs {
		e, ok := b.compilers.external(spec)
		if !ok {
			return false
		}
		c, err := b.compilers.describe(packageOf(spec), e.version, e.prefix, programIn(e.prefix, os.Stat))
		if err != nil {
			return false
		}
		found = append(found, builtCompiler{env.Name, packageOf(spec), "", c})
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
	installed, err := b.database()
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
		c, err := b.compilers.describe(s.Name, s.Version, s.Prefix, find)
		if err != nil {
			return err
		}
		hash := s.Hash
		if s.External {
			hash = ""
		}
		b.compilers.built = append(b.compilers.built, builtCompiler{env.Name, s.Name, hash, c})
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
