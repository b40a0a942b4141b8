package pipeline

import (
	"strings"

	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/slurm"
)

// JobSettings returns what the matrix says about jobs on the nodes of a system: the
// partition and the SLURM_* variables of its target. Without a microarchitecture it is
// that of a system that has only one. With matrix "" it is nothing.
func JobSettings(matrix, system, uarch string) (slurm.Settings, error) {
	if matrix == "" {
		return nil, nil
	}
	m, err := site.LoadMatrix(matrix)
	if err != nil {
		return nil, err
	}
	c := m.Cluster(system)
	if c == nil {
		return nil, nil
	}
	t := c.Target(uarch)
	if uarch == "" && len(c.Targets) == 1 {
		t = &c.Targets[0]
	}
	if t == nil {
		return nil, nil
	}
	variables := map[string]string{}
	for name, value := range plan.DefaultRunners()[c.Runner.Kind] {
		variables[name] = strings.ReplaceAll(value, "{system}", c.Name)
	}
	variables["SLURM_PARTITION"] = t.Partition
	for _, v := range t.Variables {
		variables[v.Name] = v.Value
	}
	return slurm.FromVariables(func(name string) string { return variables[name] }), nil
}
