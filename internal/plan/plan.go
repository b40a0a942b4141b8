package plan

import (
	"path/filepath"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
)

// Format is the version of the plan's JSON.
const Format = 1

// Plan is what CI has to do. The same inputs give the same plan, byte for byte.
type Plan struct {
	Format int   `json:"format"`
	Jobs   []Job `json:"jobs"` // in the order of the matrix
	// Dropped are jobs that were selected and are not needed.
	Dropped []Dropped `json:"dropped"`
	// Problems concern what was selected and cannot be planned. With an entry of
	// severity error the plan is not complete.
	Problems fault.Problems `json:"problems"`
	// Registry is where it was looked for what is built already; "" if nowhere.
	Registry string `json:"registry,omitempty"`
	// Build is how the images are built, where that is not the default.
	Build Build `json:"build,omitzero"`
}

// Build is what the keys of a plan's jobs say of their builds, apart from the jobs
// themselves. Zero values stand for the defaults.
type Build struct {
	Codec     string   `json:"codec,omitempty"`
	Level     int      `json:"level,omitempty"`
	BlockSize int      `json:"block_size,omitempty"` // bytes
	Env       []string `json:"env,omitempty"`        // names of variables that builds see
}

// Job builds one image.
type Job struct {
	ID      string `json:"id"` // the label without a tag: unique in a plan
	Name    string `json:"name"`
	Version string `json:"version"`
	System  string `json:"system"`
	UArch   string `json:"uarch"`

	Recipe        string            `json:"recipe"`                   // directory, slash-separated, relative to the repository
	Builder       string            `json:"builder"`                  // spack or script
	RecipeVersion int               `json:"recipe_version,omitempty"` // none of a script's
	Mount         string            `json:"mount"`
	Deploy        bool              `json:"deploy"` // the matrix deploys it here
	Partition     string            `json:"partition"`
	Runner        Runner            `json:"runner"`
	Sandbox       bool              `json:"sandbox"`   // false: the build installs into the mount point itself
	Variables     map[string]string `json:"variables"` // of the CI job, as the matrix has them

	Sources []Source `json:"sources"`
	// Key is the content key, "" if Unresolved says why there is none: such a
	// job is always built.
	Key        string   `json:"key"`
	Unresolved []string `json:"unresolved,omitempty"`
	Reasons    []string `json:"reasons"` // why the job is in the plan

	parts []Part
}

// Label returns the job's label, without namespace and tag.
func (j Job) Label() label.Label {
	return label.Label{Name: j.Name, Version: j.Version, System: j.System, UArch: j.UArch}
}

// Runner says where a job runs.
type Runner struct {
	Kind         string `json:"kind,omitempty"` // such as f7t; "" where tags are given
	SlurmTag     string `json:"slurm_tag,omitempty"`
	BaremetalTag string `json:"baremetal_tag,omitempty"`
}

// Dropped is a job that is not needed.
type Dropped struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// KeyTag is the tag under which an image is found by its key.
func KeyTag(key string) string { return key[:min(len(key), 32)] }

// Input is what a plan is made from; Read collects it.
type Input struct {
	Matrix *site.Matrix
	Select Selection
	// Recipes by directory (MatrixRecipe.Dir), and cluster configurations: of
	// those selected.
	Recipes  map[string]Recipe
	Clusters map[ClusterID]Cluster
	// Commits are what references stand for now.
	Commits map[Reference]string
	// Variables are passed to every build; secrets do not belong here.
	Variables map[string]string
	Packing   Packing
	// Runners are variables that the jobs of a kind of runner get besides those
	// of their target; "{system}" stands for the name of the cluster.
	Runners map[string]map[string]string
}

// Recipe is a recipe as far as plans need it.
type Recipe struct {
	Version int
	Spack   recipe.Spack
	Files   []FileDigest
	Err     error // it cannot be read
}

// ClusterID names a cluster configuration: recipes of version 1 have another
// than those of later versions.
type ClusterID struct {
	System string
	Old    bool // for recipes of version 1
}

// Cluster is a cluster configuration as far as plans need it.
type Cluster struct {
	Files []FileDigest
	Err   error // it cannot be read
}

// Reference is a branch, tag or commit of a repository; an empty Ref is the
// default branch.
type Reference struct{ Repo, Ref string }

// Make plans the jobs that are selected. What is wrong with selected rows of the
// matrix, or with what they name, ends in Plan.Problems; the error is that of a
// selection that cannot select anything.
func Make(in Input) (Plan, error) {
	p := Plan{Format: Format, Jobs: []Job{}, Dropped: []Dropped{}, Problems: fault.Problems{}}
	if err := in.Select.check(in.Matrix); err != nil {
		return p, err
	}
	reported := map[any]bool{}
	for _, t := range in.Select.targets(in.Matrix) {
		r := in.Recipes[t.recipe.Dir]
		id := ClusterID{t.cluster.Name, r.Version == 1}
		c := in.Clusters[id] // nothing for recipes that need none
		switch {
		case r.Err != nil:
			p.report(reported, t.recipe.Dir, t.recipe.Dir, r.Err)
		case c.Err != nil:
			p.report(reported, id, in.Matrix.File, c.Err)
		default:
			p.Jobs = append(p.Jobs, in.job(t, r, c))
		}
	}
	p.Problems = append(p.Problems, in.Select.problems(in.Matrix)...)
	p.Problems.Sort()
	return p, nil
}

// report adds the problems of an input that several jobs share, once.
func (p *Plan) report(reported map[any]bool, id any, file string, err error) {
	if reported[id] {
		return
	}
	reported[id] = true
	p.Problems = append(p.Problems, problemsOf(file, err)...)
}

func (in Input) job(t target, r Recipe, c Cluster) Job {
	dir, err := filepath.Rel(filepath.Dir(in.Matrix.File), t.recipe.Dir)
	if err != nil {
		dir = t.recipe.Dir
	}
	j := Job{
		Name: t.version.Uenv, Version: t.version.Version, System: t.cluster.Name, UArch: t.target.UArch,
		Recipe: filepath.ToSlash(dir), RecipeVersion: r.Version, Mount: t.version.Mount, Deploy: t.deployed(),
		Partition: t.target.Partition, Runner: Runner(t.cluster.Runner), Sandbox: !t.cluster.NoSandbox,
		Variables: in.variables(t), Sources: in.sources(r), Reasons: []string{in.Select.String()},
	}
	if j.Builder = recipe.BuilderSpack; r.Version == 0 {
		j.Builder = recipe.BuilderScript
	}
	j.ID = j.Label().String()
	key := KeyInput{
		Recipe: r.Files, Cluster: c.Files, System: j.System, UArch: j.UArch, Mount: j.Mount,
		Sources: j.Sources, Variables: in.Variables, Packing: in.Packing,
	}
	j.parts = key.Parts()
	j.Key, j.Unresolved = Key(key)
	return j
}
