package plan

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
)

// SingleOptions say which image is meant, whether a matrix has it or not.
type SingleOptions struct {
	Recipe  *recipe.Recipe
	Cluster *site.Cluster // nil for recipes that need none
	System  string
	UArch   string
	Mount   string
	// Resolve finds out what a reference stands for; see ReadOptions.
	Resolve func(ctx context.Context, repo, ref string) (string, error)

	Variables map[string]string // see Input
	Packing   Packing
}

// Single returns what determines one image: the same as for the job of a plan
// with the same recipe, cluster and target. References that cannot be resolved
// are left without a commit, so that there is no key.
func Single(ctx context.Context, o SingleOptions) (KeyInput, error) {
	var files Files
	digests, err := files.Recipe(o.Recipe.Dir)
	if err != nil {
		return KeyInput{}, err
	}
	key := KeyInput{
		Recipe: digests, System: o.System, UArch: o.UArch, Mount: o.Mount, Variables: o.Variables, Packing: o.Packing,
	}
	if o.Cluster != nil {
		if key.Cluster, err = files.Cluster(o.Cluster, o.Recipe.Version); err != nil {
			return KeyInput{}, err
		}
	}
	r := recipeOf(o.Recipe, digests)
	in := Input{Commits: map[Reference]string{}}
	for _, ref := range r.References() {
		if o.Resolve == nil || git.IsCommit(ref.Ref) || in.Commits[ref] != "" {
			continue
		}
		if commit, err := o.Resolve(ctx, ref.Repo, ref.Ref); err == nil {
			in.Commits[ref] = commit
		}
	}
	key.Sources = in.sources(r)
	return key, ctx.Err()
}

// DirHash returns the digest of a tree of files that in-toto calls dirHash and Go
// modules h1, in hexadecimal: of the names and contents, not of what is executable.
func DirHash(files []FileDigest) string {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b FileDigest) int { return cmp.Compare(a.Path, b.Path) })
	hash := sha256.New()
	for _, f := range sorted {
		content, _, _ := strings.Cut(f.Digest, " ")
		if content != directory {
			fmt.Fprintf(hash, "%s  %s\n", content, f.Path)
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}
