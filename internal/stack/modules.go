package stack

import (
	"fmt"
	"path"

	"uenv-ci.dev/internal/yamlpos"
)

func (r *renderer) modulesRoot() string { return path.Join(r.mount, "modules") }

// modulesV1 writes modules.yaml with the root for tcl set, if the recipe has
// the file: also where modules are switched off, as upstream does.
func (r *renderer) modulesV1(compilers []Compiler) {
	file := r.recipe.ModulesFile
	if file != nil {
		document, err := withTclRoot(file, r.modulesRoot())
		if err != nil && r.err == nil { // a recipe without roots does not load
			r.err = err
		}
		r.file("modules/modules.yaml", r.marshal(document, true))
	}
	if !r.recipe.Modules {
		return
	}
	r.tree.Modules = Modules{
		Types: []string{"tcl"}, Dir: "modules", Root: r.modulesRoot(), FromSpack: file == nil, Compilers: compilers,
	}
	r.yaml("modules/upstreams.yaml", r.upstreams())
}

// DefaultModules makes modules/modules.yaml from Spack's own default file
// (etc/spack/defaults/modules.yaml): for trees whose Modules say FromSpack.
func (t *Tree) DefaultModules(defaults []byte) (File, error) {
	node, err := yamlpos.Parse("etc/spack/defaults/modules.yaml", defaults)
	if err != nil {
		return File{}, fmt.Errorf("read Spack's default modules.yaml: %w", err)
	}
	document, err := withTclRoot(node, t.Modules.Root)
	if err != nil {
		return File{}, fmt.Errorf("read Spack's default modules.yaml: %w", err)
	}
	data, err := yamlpos.Marshal(document, yamlpos.MarshalOptions{SortKeys: true})
	return File{Path: "modules/modules.yaml", Mode: 0o644, Data: data}, err
}

// withTclRoot returns a modules.yaml whose modules:default:roots:tcl is root.
func withTclRoot(file *yamlpos.Node, root string) (*yamlpos.Map, error) {
	document, _ := file.Data().(*yamlpos.Map)
	section := document
	for _, key := range []string{"modules", "default", "roots"} {
		value, _ := section.Get(key)
		next, ok := value.(*yamlpos.Map)
		if !ok {
			return nil, fmt.Errorf("modules.yaml has no mapping modules:default:roots")
		}
		section = next
	}
	section.Set("tcl", root)
	return document, nil
}

// modulesV2 writes modules.yaml of versions 2 and 3: the recipe's, with the
// root of every module type inside the image.
func (r *renderer) modulesV2(compilers []Compiler) {
	if r.recipe.ModulesFile == nil {
		return
	}
	document, _ := r.recipe.ModulesFile.Data().(*yamlpos.Map) // as its schema says
	modules := subMap(document, "modules")
	defaults := subMap(modules, "default")
	if _, ok := defaults.Get("arch_folder"); !ok {
		defaults.Set("arch_folder", false)
	}
	roots := subMap(defaults, "roots")
	types := roots.Keys()
	if len(types) == 0 {
		types = enabledTypes(defaults)
	}
	for _, t := range types {
		roots.Set(t, r.modulesRoot())
	}
	r.file("modules/modules.yaml", r.marshal(document, true))
	r.yaml("modules/upstreams.yaml", r.upstreams())
	r.tree.Modules = Modules{Types: types, Dir: "modules", Root: r.modulesRoot(), Compilers: compilers}
}

// enabledTypes are the module types of modules:default:enable, tcl without one.
func enabledTypes(defaults *yamlpos.Map) []string {
	var types []string
	value, _ := defaults.Get("enable")
	items, _ := value.([]any)
	for _, item := range items {
		types = append(types, fmt.Sprint(item))
	}
	if len(types) == 0 {
		return []string{"tcl"}
	}
	return types
}

// subMap returns the mapping below a key, put there if it is missing.
func subMap(m *yamlpos.Map, key string) *yamlpos.Map {
	value, _ := m.Get(key)
	sub, ok := value.(*yamlpos.Map)
	if !ok {
		sub = &yamlpos.Map{}
		m.Set(key, sub)
	}
	return sub
}

// upstreams tells a user's Spack where the installed packages are.
func (r *renderer) upstreams() *yamlpos.Map {
	return yamlpos.NewMap("upstreams", yamlpos.NewMap("system", yamlpos.NewMap("install_tree", r.mount)))
}
