package site

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
)

// Matrix is the pipeline's config.yaml: what is built and deployed where.
// Microarchitectures, clusters and kinds of runners are data.
type Matrix struct {
	File     string // as given
	Recipes  string // directory of recipes, beside the file
	Clusters []MatrixCluster
	Versions []MatrixVersion // every version of every uenv, in file order
	// Problems are all that is wrong, warnings included. Those of one cluster or
	// version are among its own too: a broken row concerns only the plans that
	// select it.
	Problems fault.Problems
}

// MatrixCluster is a cluster with its targets and runners.
type MatrixCluster struct {
	Name      string
	Node      *yamlpos.Node // its name in the file
	Targets   []Target
	Runner    Runner
	NoSandbox bool // no_bwrap: builds install into the mount point itself
	Problems  fault.Problems
}

// Target is a kind of node of a cluster.
type Target struct {
	UArch, Partition string
	Variables        []Variable // file order
	Node             *yamlpos.Node
}

// Variable is a variable for the jobs of a target, passed on as it is.
type Variable struct{ Name, Value string }

// Runner says where jobs run: a kind such as f7t, or the tags of GitLab runners.
type Runner struct {
	Kind         string // "" where tags are given
	SlurmTag     string
	BaremetalTag string // "" = none
}

// MatrixVersion is one version of a uenv.
type MatrixVersion struct {
	Uenv, Version, Mount string
	Node                 *yamlpos.Node // the version's key in the file
	Recipes              []MatrixRecipe
	Deploy               []MatrixDeploy
	Problems             fault.Problems
}

// MatrixRecipe says from which recipe a version is built for a microarchitecture.
type MatrixRecipe struct {
	UArch, Path string // as in the file
	Dir         string // the directory found, "" if there is none
	Node        *yamlpos.Node
}

// MatrixDeploy is a cluster and the microarchitectures that a version is deployed to.
type MatrixDeploy struct {
	System string
	UArchs []string
	Node   *yamlpos.Node // the cluster's name in the file
}

// LoadMatrix reads the matrix and checks every row. What is wrong with single
// clusters and versions is in their Problems and no error of this function; where
// something concerns them all, the error lists everything.
func LoadMatrix(path string) (*Matrix, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "the matrix '%s' does not exist", path)
	}
	r := &reader{}
	root := r.checked(path, matrixFormat)
	if root.Get("clusters") == nil || root.Get("uenvs") == nil {
		_, err := r.finish()
		return nil, err
	}
	m := &Matrix{File: path, Recipes: filepath.Join(filepath.Dir(path), "recipes")}
	for _, p := range root.Get("clusters").Pairs {
		m.Clusters = append(m.Clusters, cluster(r, p))
	}
	for _, uenv := range root.Get("uenvs").Pairs {
		for _, version := range uenv.Value.Pairs {
			m.Versions = append(m.Versions, m.version(r, uenv.Key, version))
		}
	}
	r.Problems.Sort()
	m.Problems = r.Problems
	if len(m.share(root)) > 0 {
		return nil, m.Problems
	}
	return m, nil
}

func cluster(r *reader, p yamlpos.Pair) MatrixCluster {
	c := MatrixCluster{Name: p.Key.Raw, Node: p.Key, NoSandbox: p.Value.Get("no_bwrap").Bool(false)}
	runner := p.Value.Get("runner")
	c.Runner = Runner{Kind: runner.Text(), SlurmTag: runner.Get("slurm-tag").Text(), BaremetalTag: runner.Get("baremetal-tag").Text()}
	seen := map[string]bool{}
	for _, item := range yamlpos.Items(p.Value.Get("targets")) {
		t := Target{UArch: item.Get("uarch").Text(), Partition: item.Get("partition").Text(), Node: item}
		for _, v := range yamlpos.Pairs(item.Get("variables")) {
			t.Variables = append(t.Variables, Variable{v.Key.Raw, v.Value.Text()})
		}
		if label.Valid(t.UArch) && !label.RegistryPath(t.UArch) {
			r.Fail(item.Get("uarch"), label.RegistryHint, "images for '%s' cannot be published", t.UArch)
		}
		if seen[t.UArch] {
			r.Fail(item, "", "cluster '%s' has the target '%s' twice", c.Name, t.UArch)
		}
		seen[t.UArch] = true
		c.Targets = append(c.Targets, t)
	}
	return c
}

// rowName is what the schema lets through as names of a uenv and its version.
var rowName = regexp.MustCompile(`^[\w.-]+/[\w.-]+$`)

func (m *Matrix) version(r *reader, uenv *yamlpos.Node, p yamlpos.Pair) MatrixVersion {
	v := MatrixVersion{Uenv: uenv.Raw, Version: p.Key.Raw, Node: p.Key, Mount: pathcheck.DefaultMount}
	if s, ok := p.Value.Get("mount").Str(); ok && path.IsAbs(s) { // else the schema has refused it
		if err := pathcheck.MountPoint(path.Clean(s)); err != nil {
			r.Fail(p.Value.Get("mount"), "most use "+pathcheck.DefaultMount, "'%s' cannot be a mount point: %v", s, err)
		} else {
			v.Mount = path.Clean(s)
		}
	}
	if name := v.Uenv + "/" + v.Version; rowName.MatchString(name) && !label.RegistryPath(name) {
		r.Fail(p.Key, label.RegistryHint, "%s cannot be published", name)
	}
	for _, recipe := range yamlpos.Pairs(p.Value.Get("recipes")) {
		v.Recipes = append(v.Recipes, m.recipe(r, v, recipe))
	}
	for _, d := range yamlpos.Pairs(p.Value.Get("deploy")) {
		v.Deploy = append(v.Deploy, MatrixDeploy{d.Key.Raw, d.Value.Texts(), d.Key})
		m.checkDeploy(r, v, d)
	}
	return v
}

// recipe finds the directory of a recipe: below the uenv's own directory, or else
// below that of all recipes.
func (m *Matrix) recipe(r *reader, v MatrixVersion, p yamlpos.Pair) MatrixRecipe {
	found := MatrixRecipe{UArch: p.Key.Raw, Path: p.Value.Text(), Node: p.Value}
	if !m.supports(found.UArch) {
		r.Warn(p.Key, "unused-uarch", schema.Suggest(found.UArch, m.uarchs()), "no cluster has the target '%s'", found.UArch)
	}
	if found.Path == "" {
		return found // the schema has refused it
	}
	if !filepath.IsLocal(found.Path) {
		r.Fail(p.Value, "paths are relative to the directory 'recipes'", "the recipe path '%s' leads out of the repository", found.Path)
		return found
	}
	for _, dir := range []string{filepath.Join(m.Recipes, v.Uenv, found.Path), filepath.Join(m.Recipes, found.Path)} {
		if isDir(dir) {
			found.Dir = dir
			return found
		}
	}
	r.Fail(p.Value, "it is looked for in "+filepath.Join(m.Recipes, v.Uenv)+" and "+m.Recipes,
		"the recipe '%s' of %s/%s for %s does not exist", found.Path, v.Uenv, v.Version, found.UArch)
	return found
}

// checkDeploy checks one row of `deploy`: the cluster exists, has the targets, and
// there is a recipe for each.
func (m *Matrix) checkDeploy(r *reader, v MatrixVersion, p yamlpos.Pair) {
	system := p.Key.Raw
	c := m.Cluster(system)
	if c == nil {
		r.Fail(p.Key, schema.Suggest(system, m.clusterNames()), "%s/%s is deployed to '%s', which is no cluster of this file", v.Uenv, v.Version, system)
	}
	for _, item := range yamlpos.Items(p.Value) {
		uarch, ok := item.Str()
		if !ok {
			continue
		}
		if c != nil && c.Target(uarch) == nil {
			r.Fail(item, schema.Suggest(uarch, c.uarchs()), "%s/%s is deployed to %s on '%s', which the cluster does not have", v.Uenv, v.Version, uarch, system)
		}
		if v.Recipe(uarch) == nil {
			r.Fail(item, "add it below 'recipes'", "%s/%s is deployed to %s on '%s' without a recipe for %s", v.Uenv, v.Version, uarch, system, uarch)
		}
	}
}

// share gives each cluster and version the problems that stand in its lines, and
// returns the errors that concern them all.
func (m *Matrix) share(root *yamlpos.Node) fault.Problems {
	var common fault.Problems
	type owner struct {
		start *yamlpos.Node
		list  *fault.Problems
	}
	var owners []owner
	for i := range m.Clusters {
		owners = append(owners, owner{m.Clusters[i].Node, &m.Clusters[i].Problems})
	}
	for i := range m.Versions {
		owners = append(owners, owner{m.Versions[i].Node, &m.Versions[i].Problems})
	}
	for _, p := range root.Pairs {
		owners = append(owners, owner{p.Key, &common})
	}
	for _, uenv := range root.Get("uenvs").Pairs {
		owners = append(owners, owner{uenv.Key, &common})
	}
	slices.SortFunc(owners, func(a, b owner) int {
		return cmp.Or(a.start.Line-b.start.Line, a.start.Column-b.start.Column)
	})
	for _, p := range m.Problems {
		list := &common
		after := sort.Search(len(owners), func(i int) bool {
			start := owners[i].start
			return start.Line > p.Line || start.Line == p.Line && start.Column > p.Column
		})
		if after > 0 {
			list = owners[after-1].list
		}
		*list = append(*list, p)
	}
	return common.Errors()
}

// Cluster returns a cluster by name, nil if there is none.
func (m *Matrix) Cluster(name string) *MatrixCluster {
	i := slices.IndexFunc(m.Clusters, func(c MatrixCluster) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &m.Clusters[i]
}

// Target returns the target with a microarchitecture, nil if there is none.
func (c *MatrixCluster) Target(uarch string) *Target {
	i := slices.IndexFunc(c.Targets, func(t Target) bool { return t.UArch == uarch })
	if i < 0 {
		return nil
	}
	return &c.Targets[i]
}

// Recipe returns the recipe for a microarchitecture, nil if there is none.
func (v *MatrixVersion) Recipe(uarch string) *MatrixRecipe {
	i := slices.IndexFunc(v.Recipes, func(r MatrixRecipe) bool { return r.UArch == uarch })
	if i < 0 {
		return nil
	}
	return &v.Recipes[i]
}

// Deployed reports whether the version is deployed to a target.
func (v *MatrixVersion) Deployed(system, uarch string) bool {
	return slices.ContainsFunc(v.Deploy, func(d MatrixDeploy) bool { return d.System == system && slices.Contains(d.UArchs, uarch) })
}

func (m *Matrix) clusterNames() []string {
	names := make([]string, len(m.Clusters))
	for i, c := range m.Clusters {
		names[i] = c.Name
	}
	return names
}

func (c *MatrixCluster) uarchs() []string {
	names := make([]string, len(c.Targets))
	for i, t := range c.Targets {
		names[i] = t.UArch
	}
	return names
}

func (m *Matrix) uarchs() []string {
	var names []string
	for i := range m.Clusters {
		names = append(names, m.Clusters[i].uarchs()...)
	}
	return names
}

func (m *Matrix) supports(uarch string) bool { return slices.Contains(m.uarchs(), uarch) }
