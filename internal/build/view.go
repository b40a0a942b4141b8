package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

// view completes the directory of a view, by the script that activates it, and
// returns what it does to the environment.
func (b *spackBuild) view(v stack.View, script string) (meta.View, error) {
	root, err := b.viewDir(v)
	if err != nil {
		return meta.View{}, err
	}
	if v.AddCompilers {
		if err := b.linkCompilers(path.Join(root, "bin"), v.Compilers); err != nil {
			return meta.View{}, err
		}
	}
	vars := prefixPaths(b.activation(script), v, b.isDir)
	if err := b.writeViewFiles(root, []byte(script), vars); err != nil {
		return meta.View{}, err
	}
	view := meta.SpackView(v.Root, v.Description, vars.Overlay(v.Variables))
	if b.tree.Version == 1 {
		view.Activate = v.Root + "/activate.sh"
	}
	return view, nil
}

// viewDir returns the name in the store of the directory of a view, which has a
// directory bin from now on.
func (b *spackBuild) viewDir(v stack.View) (string, error) {
	root, ok := locate(b.cell.stored, b.mount(), v.Root)
	if !ok {
		return "", fmt.Errorf("%s is a link that leads out of the store", v.Root)
	}
	return root, b.cell.stored.MkdirAll(path.Join(root, "bin"), 0o755)
}

// writeViewFiles writes what the directory of a view in the store tells of its
// environment: the script for shells, and the changes as data.
func (b *spackBuild) writeViewFiles(root string, script []byte, vars meta.Variables) error {
	if err := b.cell.stored.write(path.Join(root, "activate.sh"), script, 0o644); err != nil {
		return err
	}
	data, err := json.Marshal(meta.ViewEnv{Version: 1, Values: vars})
	if err != nil {
		return err
	}
	return b.cell.stored.write(path.Join(root, "env.json"), append(data, '\n'), 0o644)
}

// activation turns the script that activates a view into changes of variables,
// without what belongs to the build.
func (b *spackBuild) activation(script string) meta.Variables {
	ours := []string{b.cell.Build, b.spack.Dir}
	vars := meta.Variables{List: map[string][]meta.ListOp{}, Scalar: map[string]*string{}}
	for _, e := range spack.ParseExports(script) {
		if !recipe.IsPrefixVariable(e.Name) {
			vars.Scalar[e.Name] = &e.Value
			continue
		}
		op := listOp(e)
		if len(vars.List[e.Name]) == 0 {
			op.Op = meta.OpPrepend // also where the script sets: users have something already
		}
		op.Value = slices.DeleteFunc(op.Value, func(value string) bool {
			if b.tree.Version == 3 && e.Name == "PATH" && slices.Contains(systemPath, value) {
				return true
			}
			return slices.ContainsFunc(ours, func(dir string) bool { return pathcheck.Within(value, dir) })
		})
		vars.List[e.Name] = append(vars.List[e.Name], op)
	}
	return vars
}

// systemPath is what views of format 3 do not put into PATH again.
var systemPath = []string{"/usr/bin", "/usr/local/bin", "/bin"}

// listOp tells what a script does to a list: whether the variable itself stands
// at one end of its new value.
func listOp(e spack.Export) meta.ListOp {
	fields := slices.DeleteFunc(strings.Split(e.Value, ":"), func(s string) bool { return strings.TrimSpace(s) == "" })
	op := meta.OpSet
	if n := len(fields); n > 0 {
		self := "$" + e.Name
		switch {
		case fields[0] == self:
			op, fields = meta.OpAppend, fields[1:]
		case fields[n-1] == self:
			op, fields = meta.OpPrepend, fields[:n-1]
		}
	}
	for i, f := range fields {
		fields[i] = path.Clean(f)
	}
	return meta.ListOp{Op: op, Value: fields}
}

// linkCompilers links the executables of compilers into a directory of the store.
func (b *spackBuild) linkCompilers(bin string, compilers []stack.Compiler) error {
	for _, name := range compilers {
		c, err := b.compilers.get(name)
		if err != nil && b.tree.Cleanup == "runtime" {
			b.Events.Warn("views", "no links to %s: cleanup has removed it", name.Package)
			continue
		}
		if err != nil {
			return err
		}
		paths := c.paths()
		for _, role := range roles {
			target, ok := paths[role]
			if !ok {
				continue
			}
			link := path.Join(bin, b.linkName(c, role, target))
			if err := b.cell.stored.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("link the compilers: %w", err)
			}
			if err := b.cell.stored.Symlink(target, link); err != nil {
				return fmt.Errorf("link the compilers: %w", err)
			}
		}
	}
	return nil
}

// linkName is what the link to a program of a compiler is called.
func (b *spackBuild) linkName(c compiler, role, target string) string {
	if b.tree.Version == 3 && c.name == "gcc" {
		return executables["gcc"][role][0] // also where the system's has a version in its name
	}
	return path.Base(target)
}
