package pipeline

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/yamlpos"
)

// maxLintDepth bounds how deep directories are searched for something to check.
const maxLintDepth = 8

// find notes what is at a path, or below it.
func (l *linter) find(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "there is no file or directory '%s'", path)
	case err != nil:
		return fault.Wrap(fault.Failure, err, "look at '%s'", path)
	case !info.IsDir():
		l.findFile(path)
		return nil
	}
	before := l.found()
	l.findDir(path, maxLintDepth)
	if l.found() == before {
		l.add(fault.Problem{
			File: path, Message: "holds nothing that can be checked",
			Hint: "a recipe has a config.yaml, a cluster configuration a packages.yaml, a matrix the keys 'clusters' and 'uenvs'",
		})
	}
	return nil
}

func (l *linter) found() int {
	return len(l.recipes) + len(l.clusters) + len(l.matrices) + len(l.sites) + l.unusable + len(l.problems)
}

// findFile notes a file: a matrix or a site file by itself, or the recipe or
// cluster configuration that it belongs to.
func (l *linter) findFile(path string) {
	root, problems := readDocument(path)
	switch {
	case isSite(path, root):
		l.addSite(path)
	case isMatrix(root):
		l.addMatrix(path)
	case isClusterList(root):
		l.checkClusterList(path, root)
	case l.belongs(filepath.Dir(path)):
	case problems != nil:
		l.add(problems...)
	default:
		l.add(fault.Problem{
			File:    path,
			Message: "is no site file and no matrix, and belongs to no recipe and no cluster configuration",
			Hint:    "a site file is named " + site.FileName + " or site.yaml, or has one of the keys " + strings.Join(siteKeys(), ", "),
		})
	}
}

// belongs notes what a directory is, if it is something by itself.
func (l *linter) belongs(dir string) bool {
	before := l.found()
	l.findDir(dir, 0)
	return l.found() > before
}

// findDir notes what a directory is, or else what is below it.
func (l *linter) findDir(dir string, depth int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.addError(dir, err)
		return
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	if has(site.FileName) {
		l.addSite(filepath.Join(dir, site.FileName))
	}
	switch {
	case has("config.yaml"):
		if l.findConfig(dir, has) {
			return
		}
	case has("environments.yaml"), has("compilers.yaml") && !has("packages.yaml"):
		l.addRecipe(dir)
		return
	case has("packages.yaml"):
		l.addCluster(dir)
		return
	}
	for _, e := range entries {
		if e.IsDir() && depth > 0 && !strings.HasPrefix(e.Name(), ".") {
			l.findDir(filepath.Join(dir, e.Name()), depth-1)
		}
	}
}

// findConfig tells what a directory with a config.yaml is. It returns whether
// that is all: directories of clusters are searched further.
func (l *linter) findConfig(dir string, has func(string) bool) bool {
	path := filepath.Join(dir, "config.yaml")
	root, problems := readDocument(path)
	switch {
	case isMatrix(root):
		l.addMatrix(path)
	case isClusterList(root) && !has("environments.yaml"):
		l.checkClusterList(path, root)
		return false
	case problems != nil && !has("environments.yaml") && !has("compilers.yaml") && has("recipes"):
		l.unusable++
		l.add(problems...)
	default:
		l.addRecipe(dir)
	}
	return true
}

// readDocument reads a YAML file as far as that is possible.
func readDocument(path string) (*yamlpos.Node, fault.Problems) {
	var root *yamlpos.Node
	data, err := bounded.ReadFile(path, yamlpos.MaxBytes)
	if err == nil {
		root, err = yamlpos.Parse(path, data)
	}
	var problems fault.Problems
	if err != nil && !errors.As(err, &problems) {
		problems = fault.Problems{{File: path, Message: "cannot be read: " + err.Error()}}
	}
	return root, problems
}

// siteKeys are keys that a site file has and no other file.
func siteKeys() []string {
	return []string{"registry", "namespaces", "promotion", "waivers", "listing"}
}

// isSite tells a site file by its name, or by what it says where no other file is
// meant by its name.
func isSite(path string, root *yamlpos.Node) bool {
	switch filepath.Base(path) {
	case site.FileName, "site.yaml":
		return true
	case "config.yaml", "environments.yaml", "compilers.yaml", "packages.yaml", "modules.yaml", "network.yaml", "repos.yaml", "mirrors.yaml":
		return false
	}
	return slices.ContainsFunc(siteKeys(), func(key string) bool { return root.Get(key) != nil })
}

// isMatrix tells the matrix from other files: it alone has 'uenvs', and alone
// has clusters with targets.
func isMatrix(root *yamlpos.Node) bool {
	clusters := root.Get("clusters")
	return root.Get("uenvs") != nil || clusters != nil && clusters.Kind == yamlpos.Mapping
}

// isClusterList tells the file beside cluster configurations that lists them.
func isClusterList(root *yamlpos.Node) bool {
	clusters := root.Get("clusters")
	return clusters != nil && clusters.Kind == yamlpos.Sequence
}

func (l *linter) addMatrix(path string) {
	if slices.ContainsFunc(l.matrices, func(m *site.Matrix) bool { return l.key(m.File) == l.key(path) }) {
		return
	}
	m, err := site.LoadMatrix(path)
	if err != nil {
		l.unusable++
		l.addError(path, err)
		return
	}
	l.add(m.Problems...)
	l.matrices = append(l.matrices, m)
}

// checkClusterList compares a list of clusters with the configurations beside
// it. Nothing reads the list, so it only misleads.
func (l *linter) checkClusterList(path string, root *yamlpos.Node) {
	dir := filepath.Dir(path)
	there := site.Clusters(dir)
	var listed []string
	for _, item := range root.Get("clusters").Items {
		name, _ := item.Str()
		listed = append(listed, name)
		if !slices.Contains(there, name) {
			l.add(item.Warning("stale-list", "there is no configuration of the cluster '"+name+"' beside this list", ""))
		}
	}
	for _, name := range there {
		if !slices.Contains(listed, name) {
			l.add(root.Key("clusters").Warning("stale-list", "the list lacks the cluster '"+name+"'", ""))
		}
	}
}
