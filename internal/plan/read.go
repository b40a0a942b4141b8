package plan

import (
	"context"
	"sync"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/parallel"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
)

// ReadOptions say where the inputs of a plan are.
type ReadOptions struct {
	Matrix *site.Matrix
	Select Selection
	// ClusterDir returns the directory of a cluster's configuration for recipes
	// of a version, "" if there is none.
	ClusterDir func(system string, recipeVersion int) string
	// Resolve finds out what a reference stands for, as git.ResolveRemote does.
	// Nil, or an error: the jobs that need it have no key.
	Resolve func(ctx context.Context, repo, ref string) (string, error)

	Variables map[string]string // see Input
	Packing   Packing
	Runners   map[string]map[string]string
}

// Read collects the inputs of a plan: recipes and cluster configurations of what
// is selected are read once each and at the same time, and floating references
// are resolved. What cannot be read is reported by Make. The error is that of an
// interruption.
func Read(ctx context.Context, o ReadOptions) (Input, error) {
	r := &planReader{options: o, input: Input{
		Matrix: o.Matrix, Select: o.Select, Variables: o.Variables, Packing: o.Packing, Runners: o.Runners,
		Recipes: map[string]Recipe{}, Clusters: map[ClusterID]Cluster{}, Commits: map[Reference]string{},
	}}
	targets := o.Select.targets(o.Matrix)
	for _, t := range targets {
		r.input.Recipes[t.recipe.Dir] = Recipe{}
	}
	err := parallel.Each(ctx, keys(r.input.Recipes), r.recipe)
	for _, t := range targets {
		found := r.input.Recipes[t.recipe.Dir]
		if found.Err != nil || found.Version == 0 { // unreadable, or without Spack
			continue
		}
		r.input.Clusters[ClusterID{t.cluster.Name, found.Version == 1}] = Cluster{}
		for _, ref := range found.References() {
			if o.Resolve != nil && !git.IsCommit(ref.Ref) {
				r.input.Commits[ref] = ""
			}
		}
	}
	if err == nil {
		err = parallel.Each(ctx, keys(r.input.Clusters), r.cluster)
	}
	if err == nil {
		err = parallel.Each(ctx, keys(r.input.Commits), r.commit)
	}
	return r.input, err
}

// planReader reads inputs from several goroutines.
type planReader struct {
	options ReadOptions
	files   Files
	mu      sync.Mutex // guards the maps of input
	input   Input
}

func (r *planReader) recipe(ctx context.Context, dir string) {
	var result Recipe
	loaded, err := recipe.Load(ctx, dir)
	if err == nil {
		var files []FileDigest
		files, err = r.files.Recipe(dir)
		result = recipeOf(loaded, files)
	}
	result.Err = err
	r.mu.Lock()
	defer r.mu.Unlock()
	r.input.Recipes[dir] = result
}

func (r *planReader) cluster(_ context.Context, id ClusterID) {
	version := 2
	if id.Old {
		version = 1
	}
	result := Cluster{Err: fault.New(fault.NotFound, "there is no cluster configuration of '%s' for recipes of version %d", id.System, version)}
	if r.options.ClusterDir != nil {
		if dir := r.options.ClusterDir(id.System, version); dir != "" {
			loaded, err := site.LoadCluster(dir)
			if result.Err = err; err == nil {
				result.Files, result.Err = r.files.Cluster(loaded, version)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.input.Clusters[id] = result
}

func (r *planReader) commit(ctx context.Context, ref Reference) {
	commit, err := r.options.Resolve(ctx, ref.Repo, ref.Ref)
	if err != nil {
		return // the job says that the reference is not resolved
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.input.Commits[ref] = commit
}

func keys[K comparable, V any](m map[K]V) []K {
	list := make([]K, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}
