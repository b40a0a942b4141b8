package plan

import (
	"errors"
	"regexp"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/recipe"
)

// References are the repositories that a recipe takes Spack and packages from.
func (r Recipe) References() []Reference {
	if r.Spack.Repo == "" {
		return nil
	}
	references := []Reference{reference(r.Spack.Repo, r.Spack.Commit)}
	for _, p := range r.Spack.Packages {
		references = append(references, reference(p.Repo, p.Commit))
	}
	return references
}

func reference(repo string, commit *string) Reference {
	if commit == nil {
		return Reference{Repo: repo}
	}
	return Reference{Repo: repo, Ref: *commit}
}

// abbreviated is a commit that only the repository itself could complete. What
// it stands for does not move, so it is as good as the whole.
var abbreviated = regexp.MustCompile(`^[0-9a-f]{7,39}$`)

// commit returns what a reference stands for, "" if that is not known.
func (in Input) commit(ref Reference) string {
	switch {
	case git.IsCommit(ref.Ref):
		return ref.Ref
	case in.Commits[ref] != "":
		return in.Commits[ref]
	case abbreviated.MatchString(ref.Ref):
		return ref.Ref
	}
	return ""
}

func (in Input) sources(r Recipe) []Source {
	sources := []Source{}
	for i, ref := range r.References() {
		name := "spack"
		if i > 0 {
			name = r.Spack.Packages[i-1].Name
		}
		sources = append(sources, Source{Name: name, Repo: git.WithoutCredentials(ref.Repo), Ref: ref.Ref, Commit: in.commit(ref)})
	}
	return sources
}

// variables of a job: those of its kind of runner, overridden by its target's.
func (in Input) variables(t target) map[string]string {
	variables := map[string]string{}
	for name, value := range in.Runners[t.cluster.Runner.Kind] {
		variables[name] = strings.ReplaceAll(value, "{system}", t.cluster.Name)
	}
	for _, v := range t.target.Variables {
		variables[v.Name] = v.Value
	}
	return variables
}

// DefaultRunners are the variables that the field's pipelines set for its one
// kind of runner that has any: FirecREST.
func DefaultRunners() map[string]map[string]string {
	return map[string]map[string]string{"f7t": {
		"F7T_URL":          "https://firecrest.cscs.ch",
		"F7T_TOKEN_URL":    "https://auth.cscs.ch/auth/realms/firecrest-clients/protocol/openid-connect/token",
		"CSCS_RUNNER_MODE": "baremetal",
		"SLURM_ACCOUNT":    "csstaff",
		"FIRECREST_SYSTEM": "{system}",
	}}
}

// problemsOf turns an error into problems, of the given file where it names none.
func problemsOf(file string, err error) fault.Problems {
	var problems fault.Problems
	if errors.As(err, &problems) {
		return problems.Errors()
	}
	return fault.Problems{{File: file, Message: err.Error(), Hint: fault.HintOf(err)}}
}

// recipeOf keeps what plans need of a recipe.
func recipeOf(r *recipe.Recipe, files []FileDigest) Recipe {
	return Recipe{Version: r.Version, Spack: r.Spack, Files: files}
}
