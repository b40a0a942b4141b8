package reframe

import (
	"fmt"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

// Environment is one entry of an image's extra/reframe.yaml: a programming
// environment in which checks may run.
type Environment struct {
	Name       string
	Features   []string // select the checks: a check may ask for "+mpi"
	Views      []string // loaded before the activation
	Activation []string // shell commands
	// Settings are further members of ReFrame's environment: cc, cxx, ftn, flags,
	// extras. Every scalar is text, as ReFrame's users expect of this file.
	Settings map[string]any
}

// The members of an environment that are passed to ReFrame as they are.
var (
	textSettings = []string{"cc", "cxx", "ftn", "nvcc"}
	listSettings = []string{"cppflags", "cflags", "cxxflags", "fflags", "ldflags", "modules"}
)

// ParseEnvironments reads the text of an extra/reframe.yaml; file is its name in
// messages. Whatever is wrong with it is returned as fault.Problems.
func ParseEnvironments(file string, data []byte) ([]Environment, error) {
	root, err := yamlpos.Parse(file, data)
	if err != nil {
		return nil, err
	}
	if root.IsNull() {
		return nil, nil
	}
	p := &envReader{}
	if root.Kind != yamlpos.Mapping {
		p.fail(root, "a mapping of environments is expected, not a %s", root.Kind)
	}
	var envs []Environment
	for _, pair := range root.Pairs {
		envs = append(envs, p.environment(pair.Key.Raw, pair.Value))
	}
	return envs, p.problems.Err()
}

type envReader struct{ problems fault.Problems }

func (p *envReader) fail(n *yamlpos.Node, format string, args ...any) {
	p.problems = append(p.problems, n.Problem(fmt.Sprintf(format, args...), ""))
}

func (p *envReader) environment(name string, n *yamlpos.Node) Environment {
	e := Environment{Name: name, Settings: map[string]any{}}
	if n.Kind != yamlpos.Mapping {
		p.fail(n, "environment %s: a mapping is expected, not a %s", name, n.Kind)
		return e
	}
	for _, pair := range n.Pairs {
		key, value := pair.Key.Raw, pair.Value
		switch {
		case key == "features":
			e.Features = p.list(key, value)
		case key == "views":
			e.Views = p.list(key, value)
		case key == "activation" && value.Kind == yamlpos.Scalar:
			e.Activation = []string{"source " + value.Raw} // the deprecated form: a script
		case key == "activation":
			e.Activation = p.list(key, value)
		case key == "extras":
			if value.Kind != yamlpos.Mapping {
				p.fail(value, "extras: a mapping is expected, not a %s", value.Kind)
				continue
			}
			e.Settings[key] = texts(value)
		case slices.Contains(textSettings, key):
			e.Settings[key] = p.text(key, value)
		case slices.Contains(listSettings, key):
			e.Settings[key] = p.list(key, value)
		default:
			p.problems = append(p.problems, pair.Key.Problem(fmt.Sprintf("environment %s: unknown member %q", name, key),
				"known are features, views, activation, extras, "+strings.Join(slices.Concat(textSettings, listSettings), ", ")))
		}
	}
	return e
}

func (p *envReader) text(key string, n *yamlpos.Node) string {
	if n.Kind != yamlpos.Scalar {
		p.fail(n, "%s: a text is expected, not a %s", key, n.Kind)
	}
	return n.Raw
}

func (p *envReader) list(key string, n *yamlpos.Node) []string {
	if n.Kind != yamlpos.Sequence {
		p.fail(n, "%s: a list is expected, not a %s", key, n.Kind)
	}
	items := []string{}
	for _, item := range n.Items {
		items = append(items, p.text(key, item))
	}
	return items
}

// texts returns a value with every scalar as text: 2025.0 is "2025.0".
func texts(n *yamlpos.Node) any {
	switch n.Kind {
	case yamlpos.Sequence:
		items := []any{}
		for _, item := range n.Items {
			items = append(items, texts(item))
		}
		return items
	case yamlpos.Mapping:
		m := map[string]any{}
		for _, pair := range n.Pairs {
			m[pair.Key.Raw] = texts(pair.Value)
		}
		return m
	}
	return n.Raw
}
