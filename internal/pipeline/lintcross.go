package pipeline

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// addRecipesOf notes the recipes that a matrix names, those that nothing names,
// and the configurations of its clusters.
func (l *linter) addRecipesOf(m *site.Matrix) {
	named := map[string]bool{}
	for _, v := range m.Versions {
		for _, r := range v.Recipes {
			if r.Dir != "" {
				l.addRecipe(r.Dir)
				named[filepath.Clean(r.Dir)] = true
			}
		}
	}
	err := filepath.WalkDir(m.Recipes, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // the rows that need it say so
		case d.IsDir() && named[path]:
			return filepath.SkipDir
		case !d.IsDir() && d.Name() == "config.yaml":
			l.addRecipe(filepath.Dir(path))
			l.add(fault.Problem{
				File: filepath.Dir(path), Severity: fault.Warning, Rule: "unused-recipe",
				Message: "the recipe is named by nothing in " + m.File,
			})
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		l.addError(m.Recipes, err)
	}
}

// crossCheck tries every recipe with the clusters that the matrix builds it for.
func (l *linter) crossCheck(ctx context.Context) error {
	var tasks []func(context.Context)
	tried := map[combination]bool{}
	for _, m := range l.matrices {
		for _, t := range targetsOf(m) {
			r := l.recipes[l.key(t.recipe.Dir)]
			if r == nil || r.loaded == nil || r.loaded.Builder == recipe.BuilderScript {
				continue
			}
			c := l.clusterOf(t, r.loaded.Version)
			if c == nil || c.loaded == nil {
				continue
			}
			l.targets++
			key := combination{r, c, t.version.Mount, t.deployed}
			if !tried[key] {
				tried[key] = true
				tasks = append(tasks, func(context.Context) { l.try(key) })
			}
		}
	}
	if len(l.matrices) > 0 && len(l.clusters) == 0 {
		l.Events.Info("lint", "recipes are not tried with clusters: no configuration is known (name their directory as well, or in the site file)")
	}
	return doAll(ctx, tasks)
}

// target is a recipe of a matrix and a cluster that it can be built for.
type target struct {
	version  *site.MatrixVersion
	recipe   *site.MatrixRecipe
	cluster  *site.MatrixCluster
	deployed bool
}

func targetsOf(m *site.Matrix) []target {
	var list []target
	for i := range m.Versions {
		v := &m.Versions[i]
		for j := range v.Recipes {
			for k := range m.Clusters {
				t := target{v, &v.Recipes[j], &m.Clusters[k], v.Deployed(m.Clusters[k].Name, v.Recipes[j].UArch)}
				if t.recipe.Dir != "" && t.cluster.Target(t.recipe.UArch) != nil {
					list = append(list, t)
				}
			}
		}
	}
	return list
}

// combination is a recipe with a cluster, as far as their fitting depends on it.
type combination struct {
	recipe   *lintedRecipe
	cluster  *lintedCluster
	mount    string
	deployed bool
}

// try notes what is wrong with a combination.
// What is not deployed may never be built, so there it is only doubtful.
func (l *linter) try(c combination) {
	problems, err := stack.Check(stack.Input{
		Recipe: c.recipe.loaded, Cluster: c.cluster.loaded, Mount: c.mount, BuildDir: "/build",
	})
	if err != nil {
		l.addError(c.recipe.dir, err)
	}
	for _, p := range problems {
		switch {
		case p.Severity == fault.Warning:
		case p.Rule == stack.RuleSpackTooOld:
			continue // the recipe itself has told
		case !c.deployed:
			p.Severity, p.Rule = fault.Warning, "undeployed"
		}
		l.add(p)
	}
}

// clusterOf returns the configuration of a target's cluster, read once. One that
// is missing is reported where the matrix names the cluster.
func (l *linter) clusterOf(t target, recipeVersion int) *lintedCluster {
	dir := l.clusterDir(t.cluster.Name, recipeVersion)
	if dir == "" {
		if l.ClusterFor != nil || len(l.clusters) > 0 {
			p := t.cluster.Node.Problem(fmt.Sprintf("there is no configuration of cluster '%s' for recipes of version %d", t.cluster.Name, recipeVersion), "")
			if p.Rule = "no-cluster"; !t.deployed {
				p.Severity = fault.Warning
			}
			l.add(p)
		}
		return nil
	}
	key := l.key(dir)
	if l.clusters[key] == nil {
		l.clusters[key] = &lintedCluster{dir: dir}
		l.readCluster(l.clusters[key])
	}
	return l.clusters[key]
}

// clusterDir finds the configuration of a cluster: among those that are checked,
// or where the site has them. Version 1 needs the form with a compilers.yaml.
func (l *linter) clusterDir(system string, recipeVersion int) string {
	if l.ClusterFor != nil {
		return l.ClusterFor(system, recipeVersion)
	}
	var found []string
	for dir, c := range l.clusters {
		if filepath.Base(dir) == system && c.loaded != nil && (c.loaded.Compilers != nil) == (recipeVersion == 1) {
			found = append(found, c.dir)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}

// checkCompression warns of recipes whose images stackinator packs with gzip:
// version 1 asked for zstd, later versions leave squashfs at its default.
func checkCompression(r *recipe.Recipe) fault.Problems {
	if r.Version < 2 || r.Builder == recipe.BuilderScript {
		return nil
	}
	if n := r.Packages.Get("squashfs"); n != nil && strings.Contains(fmt.Sprint(textsOf(n)), "default_compression=zstd") {
		return nil
	}
	return fault.Problems{{
		File: filepath.Join(r.Dir, "config.yaml"), Severity: fault.Warning, Rule: "gzip-upstream",
		Message: fmt.Sprintf("stackinator packs the image of a version %d recipe with gzip, uenv-ci with zstd", r.Version),
		Hint:    "for zstd with both, give squashfs 'variants: [default_compression=zstd]' in packages.yaml",
	}}
}

// textsOf returns all strings below a node.
func textsOf(n *yamlpos.Node) []string {
	if s, ok := n.Str(); ok {
		return []string{s}
	}
	var list []string
	for _, item := range n.Items {
		list = append(list, textsOf(item)...)
	}
	for _, p := range n.Pairs {
		list = append(list, textsOf(p.Value)...)
	}
	return list
}
