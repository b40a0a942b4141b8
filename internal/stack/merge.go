package stack

import (
	"path/filepath"
	"reflect"

	"uenv-ci.dev/internal/yamlpos"
)

// layer is the content below `packages:` of one file.
type layer struct {
	file     string // for reports
	packages *yamlpos.Node
}

func (r *renderer) clusterLayer() layer {
	return layer{r.clusterFile("packages.yaml"), r.in.Cluster.Packages}
}

func (r *renderer) networkLayer() layer {
	return layer{r.clusterFile("network.yaml"), r.in.Cluster.Network.Get("packages")}
}

func (r *renderer) recipeLayer() layer {
	return layer{filepath.Join(r.recipe.Dir, "packages.yaml"), r.recipe.Packages}
}

func (r *renderer) clusterFile(name string) string {
	return filepath.Join(r.in.Cluster.Dir, name)
}

// overlay merges layers the way upstream does: a package that a later layer
// names has that layer's entry and nothing of the earlier ones. base stays as it is.
func overlay(base *yamlpos.Map, layers ...layer) *yamlpos.Map {
	merged := &yamlpos.Map{}
	add := func(m *yamlpos.Map) {
		for _, e := range m.Entries() {
			if name, ok := e.Key.(string); ok {
				merged.Set(name, e.Value)
			}
		}
	}
	add(base)
	for _, l := range layers {
		m, _ := l.packages.Data().(*yamlpos.Map)
		add(m)
	}
	return merged
}

// reportReplaced records every entry that overlay drops, and warns of those that
// the recipe drops: its author may not know that the cluster had one.
func (r *renderer) reportReplaced(layers ...layer) {
	owner := map[string]layer{}
	for _, l := range layers {
		if l.packages == nil {
			continue
		}
		for _, p := range l.packages.Pairs {
			name, ok := p.Key.Value.(string)
			if !ok {
				continue
			}
			before, had := owner[name]
			owner[name] = l
			if !had || reflect.DeepEqual(before.packages.Get(name).Data(), p.Value.Data()) {
				continue
			}
			r.tree.Replaced = append(r.tree.Replaced, Replacement{Package: name, By: l.file, Over: before.file})
			if l.packages == r.recipe.Packages {
				r.Warn(p.Key, "package-replaced", "entries are not merged: repeat here what is still needed",
					"the entry of package '%s' replaces the one in %s", name, before.file)
			}
		}
	}
}

// packagesFile wraps a set of packages as the content of a packages.yaml.
func packagesFile(packages *yamlpos.Map) *yamlpos.Map {
	return yamlpos.NewMap("packages", packages)
}

// without returns a copy of a set of packages that lacks one of them.
func without(packages *yamlpos.Map, name string) *yamlpos.Map {
	rest := overlay(packages)
	rest.Delete(name)
	return rest
}
