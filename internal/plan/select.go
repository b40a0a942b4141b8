package plan

import (
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/site"
)

// Selection says which rows of the matrix are wanted. What is empty is anything.
type Selection struct {
	Uenv    string `json:"uenv,omitempty"`
	Version string `json:"version,omitempty"`
	System  string `json:"system,omitempty"`
	UArch   string `json:"uarch,omitempty"`
	// Deployed leaves out what can be built and is deployed nowhere.
	Deployed bool `json:"deployed,omitempty"`
}

// String says what is selected, as a reason for a job.
func (s Selection) String() string {
	var parts []string
	for _, p := range []struct{ name, value string }{{"uenv", s.Uenv}, {"version", s.Version}, {"system", s.System}, {"uarch", s.UArch}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	switch {
	case len(parts) > 0:
		return "selected: " + strings.Join(parts, ", ")
	case s.Deployed:
		return "selected: everything deployed"
	}
	return "selected: everything"
}

// target is a row of the matrix for one kind of node.
type target struct {
	version *site.MatrixVersion
	recipe  *site.MatrixRecipe
	cluster *site.MatrixCluster
	target  *site.Target
}

func (t target) deployed() bool { return t.version.Deployed(t.cluster.Name, t.target.UArch) }

// targets lists what is selected and has a recipe: in the order of versions,
// clusters and targets in the file.
func (s Selection) targets(m *site.Matrix) []target {
	var selected []target
	for i := range m.Versions {
		v := &m.Versions[i]
		if !s.wantsVersion(v) {
			continue
		}
		for j := range m.Clusters {
			c := &m.Clusters[j]
			for k := range c.Targets {
				t := target{v, v.Recipe(c.Targets[k].UArch), c, &c.Targets[k]}
				if s.wantsTarget(c.Name, t.target.UArch) && t.recipe != nil && t.recipe.Dir != "" && (!s.Deployed || t.deployed()) {
					selected = append(selected, t)
				}
			}
		}
	}
	return selected
}

func (s Selection) wantsVersion(v *site.MatrixVersion) bool {
	return (s.Uenv == "" || s.Uenv == v.Uenv) && (s.Version == "" || s.Version == v.Version)
}

func (s Selection) wantsTarget(system, uarch string) bool {
	return (s.System == "" || s.System == system) && (s.UArch == "" || s.UArch == uarch)
}

// problems are those of the matrix that make the selected part of it unusable.
func (s Selection) problems(m *site.Matrix) fault.Problems {
	var found fault.Problems
	ofVersions := map[fault.Problem]bool{}
	for i := range m.Versions {
		v := &m.Versions[i]
		for _, p := range v.Problems {
			ofVersions[p] = true
			if p.Severity == fault.Error && s.wantsVersion(v) && s.concerns(m, v, p) {
				found = append(found, p)
			}
		}
	}
	for _, p := range m.Problems {
		if p.Severity == fault.Error && !ofVersions[p] && s.concernsCluster(m, p) {
			found = append(found, p)
		}
	}
	return found
}

// concerns tells whether a problem of a version is one of the selected targets
// of that version: one that stands at a recipe or a deployment of other targets
// is not.
func (s Selection) concerns(m *site.Matrix, v *site.MatrixVersion, p fault.Problem) bool {
	for _, r := range v.Recipes {
		if r.Node != nil && r.Node.Line == p.Line && r.Node.Column == p.Column {
			return slices.ContainsFunc(m.Clusters, func(c site.MatrixCluster) bool {
				return c.Target(r.UArch) != nil && s.wantsTarget(c.Name, r.UArch) && (!s.Deployed || v.Deployed(c.Name, r.UArch))
			})
		}
	}
	for i, d := range v.Deploy {
		last := i == len(v.Deploy)-1
		if !after(p, d) || !last && after(p, v.Deploy[i+1]) || p.Line > d.Node.Line && p.Column <= d.Node.Column {
			continue
		}
		return (s.System == "" || s.System == d.System) && (s.UArch == "" || slices.Contains(d.UArchs, s.UArch))
	}
	return true
}

// concernsCluster tells whether a problem outside of all versions is one of the
// selected clusters, or of the file as a whole.
func (s Selection) concernsCluster(m *site.Matrix, p fault.Problem) bool {
	owner := ""
	for _, c := range m.Clusters {
		if c.Node.Line <= p.Line {
			owner = c.Name
		}
	}
	for _, v := range m.Versions {
		if v.Node.Line <= p.Line {
			owner = ""
		}
	}
	return owner == "" || s.System == "" || s.System == owner
}

// after tells whether a problem stands at or after the beginning of a deployment.
func after(p fault.Problem, d site.MatrixDeploy) bool {
	return p.Line > d.Node.Line || p.Line == d.Node.Line && p.Column >= d.Node.Column
}

// check refuses a selection that names what the matrix does not have.
func (s Selection) check(m *site.Matrix) error {
	var uenvs, versions, systems, uarchs []string
	for _, v := range m.Versions {
		uenvs = append(uenvs, v.Uenv)
		if s.Uenv == "" || v.Uenv == s.Uenv {
			versions = append(versions, v.Version)
		}
	}
	for _, c := range m.Clusters {
		systems = append(systems, c.Name)
		for _, t := range c.Targets {
			if s.System == "" || c.Name == s.System {
				uarchs = append(uarchs, t.UArch)
			}
		}
	}
	for _, c := range []struct {
		what, value string
		known       []string
	}{
		{"uenv", s.Uenv, uenvs},
		{"version of " + orAny(s.Uenv), s.Version, versions},
		{"cluster", s.System, systems},
		{"microarchitecture of " + orAny(s.System), s.UArch, uarchs},
	} {
		if c.value != "" && !slices.Contains(c.known, c.value) {
			err := fault.New(fault.NotFound, "'%s' is no %s in %s", c.value, c.what, m.File)
			return fault.WithHint(err, "%s", hint(c.value, c.known))
		}
	}
	return nil
}

func orAny(name string) string {
	if name == "" {
		return "anything"
	}
	return "'" + name + "'"
}

func hint(word string, known []string) string {
	if hint := schema.Suggest(word, known); hint != "" {
		return hint
	}
	slices.Sort(known)
	return "there is " + strings.Join(slices.Compact(known), ", ")
}
