package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/stack"
)

// viewEnv is env.json in the directory of a view.
type viewEnv struct {
	Version int        `json:"version"`
	Values  viewValues `json:"values"`
}

type viewValues struct {
	List   map[string][]listOp `json:"list"`
	Scalar map[string]string   `json:"scalar"`
}

type listOp struct {
	Op    string   `json:"op"`
	Value []string `json:"value"`
}

// pathLists are the variables that env.json has as lists.
var pathLists = strings.Fields(`ACLOCAL_PATH CMAKE_PREFIX_PATH CPATH LD_LIBRARY_PATH LIBRARY_PATH
	MANPATH MODULEPATH PATH PKG_CONFIG_PATH PYTHONPATH`)

// view computes env.json of a view, and makes the links to compilers, by the rules
// of the branch for the recipe's format. It shares no code with the engine that it is compared
// with.
func (f *flow) view(env stack.SpackEnvironment, v stack.View) error {
	script, err := os.ReadFile(f.host(path.Join(v.Root, "activate.sh")))
	if err != nil {
		return err
	}
	values := f.exports(string(script))
	if err := os.MkdirAll(f.host(path.Join(v.Root, "bin")), 0o755); err != nil {
		return err
	}
	if v.AddCompilers {
		if err := f.linkCompilers(env, v); err != nil {
			return err
		}
	}
	for _, p := range v.PrefixPaths {
		var dirs []string
		for _, dir := range p.Dirs {
			full := path.Join(v.Root, dir)
			listed := slices.ContainsFunc(values.List[p.Variable], func(op listOp) bool { return slices.Contains(op.Value, full) })
			if info, err := os.Stat(f.host(full)); err == nil && info.IsDir() && !listed {
				dirs = append(dirs, full)
			}
		}
		if dirs != nil {
			values.List[p.Variable] = append(values.List[p.Variable], listOp{"prepend", dirs})
		}
	}
	text, err := json.Marshal(viewEnv{1, values})
	if err != nil {
		return err
	}
	return os.WriteFile(f.host(path.Join(v.Root, "env.json")), append(text, '\n'), 0o644)
}

// exports reads the variables that a script sets.
func (f *flow) exports(script string) viewValues {
	values := viewValues{map[string][]listOp{}, map[string]string{}}
	for line := range strings.Lines(script) {
		line = strings.TrimRight(strings.TrimSpace(line), ";")
		rest, ok := strings.CutPrefix(line, "export ")
		name, value, hasValue := strings.Cut(rest, "=")
		if !ok || !hasValue || strings.HasPrefix(name, "SPACK_") {
			continue
		}
		if f.tree.Version > 1 {
			value = strings.Trim(value, "'")
		}
		if !slices.Contains(pathLists, name) {
			values.Scalar[name] = value
			continue
		}
		var paths []string
		for _, p := range strings.Split(value, ":") {
			if f.tree.Version == 3 && name == "PATH" && slices.Contains([]string{"/usr/bin", "/usr/local/bin", "/bin"}, p) {
				continue
			}
			if p = strings.TrimSpace(p); p != "" && p != f.dir && !strings.HasPrefix(p, f.dir+"/") {
				paths = append(paths, path.Clean(p))
			}
		}
		values.List[name] = append(values.List[name], listOp{"prepend", paths})
	}
	return values
}

var compilerPath = regexp.MustCompile(`(?m)^ +(cc|cxx|f77|fc|c|fortran): (/.*)$`)

// linkCompilers links the compilers that Spack has found for an environment.
func (f *flow) linkCompilers(env stack.SpackEnvironment, v stack.View) error {
	file, names := env.Dir+"/compilers.yaml", map[string]string{}
	switch f.tree.Version {
	case 2:
		file = env.Dir + "/packages.yaml"
	case 3:
		file, names = "config/packages.yaml", map[string]string{"c": "gcc", "cxx": "g++", "fortran": "gfortran"}
	}
	text, err := os.ReadFile(filepath.Join(f.dir, file))
	if err != nil {
		return err
	}
	for _, m := range compilerPath.FindAllStringSubmatch(string(text), -1) {
		link := f.host(path.Join(v.Root, "bin", cmp.Or(names[m[1]], path.Base(m[2]))))
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(m[2], link); err != nil {
			return err
		}
	}
	return nil
}

// host returns where a path below the mount point is on the host. Links in it have
// absolute targets, which hold in sandboxes only, so they are followed here.
func (f *flow) host(name string) string {
	rest := strings.TrimPrefix(path.Clean(name), f.tree.Mount)
	at := f.dir + "/store"
	for _, part := range strings.Split(strings.Trim(rest, "/"), "/") {
		at = filepath.Join(at, part)
		to, err := os.Readlink(at)
		if err == nil && strings.HasPrefix(to, f.tree.Mount+"/") {
			at = f.host(to)
		}
	}
	return at
}
