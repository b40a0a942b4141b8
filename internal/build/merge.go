package build

import (
	"fmt"
	"slices"
	"strings"

	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// environment is a Spack environment as it is built here.
type environment struct {
	stack.SpackEnvironment
	document *yamlpos.Map // of spack.yaml
}

// plan returns the environments to build, in order. Those that differ in nothing
// but their view become one: the format has them because the upstream tool can
// make one view per environment, at the price of a concretization for each.
func plan(tree *stack.Tree) ([]environment, error) {
	var planned []environment
	var meanings []string
	for _, env := range tree.Environments {
		if env.Name == stack.ToolsEnvironment {
			continue // we pack ourselves
		}
		e, err := readEnvironment(env, tree.Files)
		if err != nil {
			return nil, fmt.Errorf("read the environment %s: %w", env.Name, err)
		}
		e.dropGroup(stack.ToolsEnvironment)
		views := takeViews(e)
		meaning, err := e.meaning()
		if err != nil {
			return nil, err
		}
		i := slices.Index(meanings, meaning)
		if i < 0 {
			i = len(planned)
			e.Views = nil
			planned, meanings = append(planned, e), append(meanings, meaning)
		}
		planned[i].addViews(env.Views, views)
	}
	return planned, nil
}

func readEnvironment(env stack.SpackEnvironment, files []stack.File) (environment, error) {
	name := env.Dir + "/spack.yaml"
	i := slices.IndexFunc(files, func(f stack.File) bool { return f.Path == name })
	if i < 0 {
		return environment{}, fmt.Errorf("no %s", name)
	}
	node, err := yamlpos.Parse(name, files[i].Data)
	if err != nil {
		return environment{}, err
	}
	document, _ := node.Data().(*yamlpos.Map)
	if _, ok := section(document); !ok {
		return environment{}, fmt.Errorf("%s has no mapping 'spack'", name)
	}
	return environment{env, document}, nil
}

// section returns the mapping below the only key of a spack.yaml.
func section(document *yamlpos.Map) (*yamlpos.Map, bool) {
	value, _ := document.Get("spack")
	m, ok := value.(*yamlpos.Map)
	return m, ok
}

// takeViews removes the views from the document and returns them by their names there.
func takeViews(e environment) *yamlpos.Map {
	spack, _ := section(e.document)
	value, _ := spack.Get("view")
	spack.Set("view", false)
	views, _ := value.(*yamlpos.Map)
	return views
}

// meaning returns a text that is the same for environments that are concretized
// and installed alike.
func (e environment) meaning() (string, error) {
	document, err := yamlpos.MarshalJSON(e.document.Sorted(), 0)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %q %v %q %v %s", e.Kind, e.Include, e.BuiltWith, e.ExternalFind, e.NotBuildable, document), nil
}

// addViews adds views under the names that users know them by.
func (e *environment) addViews(views []stack.View, config *yamlpos.Map) {
	spack, _ := section(e.document)
	value, _ := spack.Get("view")
	all, ok := value.(*yamlpos.Map)
	if !ok {
		all = &yamlpos.Map{}
	}
	for _, v := range views {
		entry, _ := config.Get(v.SpackName)
		all.Set(v.Name, entry)
		v.SpackName = v.Name
		e.Views = append(e.Views, v)
	}
	if all.Len() > 0 {
		spack.Set("view", all)
	}
}

// dropSpecs removes the specs of a package from what an environment asks for.
func (e *environment) dropSpecs(name string) {
	e.Specs = slices.DeleteFunc(slices.Clone(e.Specs), func(spec string) bool { return packageOf(spec) == name })
	specs := make([]any, len(e.Specs))
	for i, spec := range e.Specs {
		specs[i] = spec
	}
	spack, _ := section(e.document)
	spack.Set("specs", specs)
}

// dropGroup removes a group of specs, if there is one of that name.
func (e *environment) dropGroup(name string) {
	if !slices.ContainsFunc(e.Groups, func(g stack.Group) bool { return g.Name == name }) {
		return
	}
	e.Groups = slices.DeleteFunc(slices.Clone(e.Groups), func(g stack.Group) bool { return g.Name == name })
	spack, _ := section(e.document)
	value, _ := spack.Get("specs")
	groups, _ := value.([]any)
	spack.Set("specs", slices.DeleteFunc(slices.Clone(groups), func(group any) bool {
		m, _ := group.(*yamlpos.Map)
		called, _ := m.Get("group")
		return called == name
	}))
}

// packageOf returns the name of the package of a spec.
func packageOf(spec string) string {
	name, _, _ := cutSpec(spec)
	return name
}

// cutSpec splits a spec into its package, its version ("" without one) and the rest.
func cutSpec(spec string) (name, version, rest string) {
	const marks = "@%+~ =^/"
	name = strings.TrimSpace(spec)
	if i := strings.IndexAny(name, marks); i >= 0 {
		name, rest = name[:i], name[i:]
	}
	if after, ok := strings.CutPrefix(rest, "@"); ok {
		version, rest = after, ""
		if i := strings.IndexAny(strings.TrimPrefix(after, "="), marks); i >= 0 {
			i += len(after) - len(strings.TrimPrefix(after, "="))
			version, rest = after[:i], after[i:]
		}
	}
	return name, version, rest
}
