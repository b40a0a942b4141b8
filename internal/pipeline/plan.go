package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/scratch"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/squashfs"
)

// PlanOptions say which jobs to plan.
type PlanOptions struct {
	Matrix string // file
	Select plan.Selection
	// ClusterFor finds the configuration of a system for recipes of a version,
	// "" if there is none. Nil: none is known.
	ClusterFor func(system string, recipeVersion int) string
	Since      string // keep what changed since this git revision; "" for all
	// Registry opens where it is asked for what is built already of a label; nil for
	// not. Keys are in the namespace that belongs to that of the images.
	Registry  func(label.Label) (*registry.Registry, error)
	Namespace string
	Offline   bool              // leave branches and tags unresolved
	Variables map[string]string // passed to every build; no secrets
	Pack      squashfs.WriteOptions
	Build     plan.Build // what the jobs are told of Variables and Pack
	Events    event.Sink
}

// Plan finds out what CI has to do. It is an error if the selection cannot match anything
// or if a file cannot be read at all; problems of single rows are part of the plan.
func Plan(ctx context.Context, o PlanOptions) (plan.Plan, error) {
	packing, err := packingOf(o.Pack)
	if err != nil {
		return plan.Plan{}, err
	}
	p := newPlanner(o)
	p.packing = packing
	made, err := p.make(ctx, o.Matrix, o.ClusterFor)
	if err != nil {
		return made, err
	}
	made.Build = o.Build
	if o.Since != "" {
		before, err := p.before(ctx)
		if err != nil {
			return made, err
		}
		made = made.Since(before, o.Since)
	}
	if o.Registry == nil {
		return made, nil
	}
	reg, err := o.Registry(label.Label{})
	if err != nil {
		return made, err
	}
	built, err := p.built(ctx, made.Jobs)
	if err != nil {
		return made, err
	}
	made = made.WithoutBuilt(built)
	made.Registry = reg.String()
	return made, nil
}

// planner makes plans that share what was resolved.
type planner struct {
	PlanOptions
	packing plan.Packing
	mu      sync.Mutex // guards the maps
	remotes map[string]func() (git.References, error)
	told    map[string]bool // warnings
}

func newPlanner(o PlanOptions) *planner {
	return &planner{PlanOptions: o, remotes: map[string]func() (git.References, error){}, told: map[string]bool{}}
}

func (p *planner) make(ctx context.Context, matrix string, clusterFor func(string, int) string) (plan.Plan, error) {
	m, err := site.LoadMatrix(matrix)
	if err != nil {
		return plan.Plan{}, err
	}
	read := plan.ReadOptions{
		Matrix: m, Select: p.Select, ClusterDir: clusterFor,
		Variables: p.Variables, Packing: p.packing, Runners: plan.DefaultRunners(),
	}
	if !p.Offline {
		read.Resolve = p.resolve
	}
	in, err := plan.Read(ctx, read)
	if err != nil {
		return plan.Plan{}, fmt.Errorf("plan: %w", err)
	}
	return plan.Make(in)
}

// resolve returns the commit that a reference stands for. Each repository is asked only
// once, and a failure is reported only once: jobs that depend on it are planned without
// a key.
func (p *planner) resolve(ctx context.Context, repo, ref string) (string, error) {
	refs, err := p.references(ctx, repo)
	if err != nil {
		return "", err
	}
	commit := refs.Resolve(ref)
	if ref == "" {
		commit, err = git.ResolveRemote(ctx, repo, ref)
	}
	if commit == "" && err == nil {
		err = fault.New(fault.NotFound, "%s has no branch or tag '%s'", git.WithoutCredentials(repo), ref)
	}
	if err != nil && ctx.Err() == nil && !git.IsAbbreviated(ref) {
		p.warnOnce(err.Error())
	}
	return commit, err
}

// references returns the branches and tags of a repository.
func (p *planner) references(ctx context.Context, repo string) (git.References, error) {
	p.mu.Lock()
	if p.remotes[repo] == nil {
		p.remotes[repo] = sync.OnceValues(func() (git.References, error) {
			refs, err := git.ListRemote(ctx, repo)
			if err != nil && ctx.Err() == nil {
				p.Events.Warn("plan", "%v", err)
			}
			return refs, err
		})
	}
	list := p.remotes[repo]
	p.mu.Unlock()
	return list()
}

func (p *planner) warnOnce(text string) {
	p.mu.Lock()
	told := p.told[text]
	p.told[text] = true
	p.mu.Unlock()
	if !told {
		p.Events.Warn("plan", "%s", text)
	}
}

// before makes the plan of the revision to compare with. It is empty if that revision had
// no matrix, or nothing that is selected.
func (p *planner) before(ctx context.Context) (_ plan.Plan, err error) {
	matrix, err := filepath.Abs(p.Matrix)
	if err != nil {
		return plan.Plan{}, err
	}
	here, err := git.Describe(ctx, filepath.Dir(matrix))
	if err != nil {
		return plan.Plan{}, fault.Wrap(fault.Usage, err, "compare with revision '%s'", p.Since)
	}
	old, err := exportRevision(ctx, here.Root, p.Since)
	if err != nil {
		return plan.Plan{}, err
	}
	defer func() { err = errors.Join(err, old.Remove()) }()
	moved := func(dir string) string { return relocate(here.Root, old.Path(), dir) }
	before, err := p.make(ctx, moved(matrix), func(system string, recipeVersion int) string {
		if p.ClusterFor == nil {
			return ""
		}
		return moved(p.ClusterFor(system, recipeVersion))
	})
	switch {
	case err == nil, fault.KindOf(err) == fault.NotFound:
		return before, nil
	case fault.KindOf(err) == fault.Invalid:
		p.Events.Warn("plan", "the matrix of revision '%s' is invalid, so everything counts as changed", p.Since)
		return plan.Plan{}, nil
	}
	return before, err
}

// exportRevision puts the files of a revision into a temporary directory. It is
// marked as the top of a repository: links are followed inside of that.
func exportRevision(ctx context.Context, root, revision string) (*scratch.Dir, error) {
	dir, err := scratch.New("", nil)
	if err != nil {
		return nil, err
	}
	err = os.Mkdir(filepath.Join(dir.Path(), ".git"), 0o755)
	if err == nil {
		err = git.Export(ctx, root, revision, dir.Path())
	}
	if err != nil {
		return nil, errors.Join(err, dir.Remove())
	}
	return dir, nil
}

// relocate returns the place of path in a copy of root; path itself if it is not
// below root.
func relocate(root, to, path string) string {
	if path == "" {
		return ""
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if resolved, err := filepath.EvalSymlinks(filepath.Dir(absolute)); err == nil {
		absolute = filepath.Join(resolved, filepath.Base(absolute))
	}
	relative, err := filepath.Rel(root, absolute)
	if err != nil || !filepath.IsLocal(relative) {
		return path
	}
	return filepath.Join(to, relative)
}

// built asks the registry which of the jobs' images exist. It returns where, by
// job: two of them may have one key and are two images nevertheless. A tag alone is not
// believed: it holds only half of the key.
func (p *planner) built(ctx context.Context, jobs []plan.Job) (map[string]string, error) {
	var mu sync.Mutex
	found := map[string]string{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4 * runtime.GOMAXPROCS(0)) // they wait for the network
	for _, j := range jobs {
		if j.Key == "" {
			continue
		}
		group.Go(func() error {
			where, err := p.lookup(ctx, j)
			if where != "" {
				mu.Lock()
				defer mu.Unlock()
				found[j.ID] = where
			}
			return err
		})
	}
	return found, group.Wait()
}

// lookup returns where the image of a job is; "" if there is none.
func (p *planner) lookup(ctx context.Context, j plan.Job) (string, error) {
	reg, err := p.Registry(j.Label())
	if err != nil {
		return "", err
	}
	repo, err := reg.Repository(j.Label().WithNamespace(keyNamespace(p.Namespace, false)).Repository())
	if err != nil {
		return "", err
	}
	m, err := imageOfKey(ctx, repo, j.Key)
	switch kind := fault.KindOf(err); {
	case err == nil && m.Key == j.Key:
		return repo.Name() + "@" + m.Descriptor.Digest.String(), nil
	case err == nil || kind == fault.NotFound || kind == fault.Invalid:
		return "", nil
	}
	return "", fault.Wrap(fault.KindOf(err), err, "look for what is built of %s", j.ID)
}
