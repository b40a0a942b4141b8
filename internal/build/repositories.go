package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/stack"
)

// repositories of packages that the recipe names, without Spack itself.
func (b *spackBuild) packageClones() []stack.Clone {
	return slices.DeleteFunc(slices.Clone(b.tree.Clones), func(c stack.Clone) bool { return c.CopyPath == "" })
}

// cloneRepositories puts the repositories of packages that the recipe names into the
// store: from format 2 on they are not part of Spack.
func (b *spackBuild) cloneRepositories(ctx context.Context) error {
	for _, c := range b.packageClones() {
		if b.Offline && !isLocal(c.Repo) {
			return fault.WithHint(fault.New(fault.NotFound, "the package repository %s is not on this machine, and cloning it is not allowed", git.WithoutCredentials(c.Repo)),
				"let config.yaml name a clone of it, or build with a network")
		}
		commit, err := b.cloneRepository(ctx, c)
		if err != nil {
			return err
		}
		b.report.Repositories = append(b.report.Repositories, Repository{Name: c.Name, Source: git.WithoutCredentials(c.Repo), Commit: commit})
	}
	return nil
}

// cloneRepository copies the packages of one repository into the store, and returns
// the commit that they are from.
func (b *spackBuild) cloneRepository(ctx context.Context, c stack.Clone) (string, error) {
	reference := ""
	if c.Commit != nil {
		reference = *c.Commit
	}
	b.Events.Info("repositories", "clone %s at %s", git.WithoutCredentials(c.Repo), reference)
	dir := b.cell.path(filepath.FromSlash(c.To))
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) // the storage is memory
	commit, err := git.Clone(ctx, c.Repo, reference, dir)
	if err != nil {
		return "", err
	}
	from := stack.Copy{From: filepath.Join(dir, filepath.FromSlash(c.CopyPath)), To: c.CopyTo, Within: dir, Exclude: []string{".git"}}
	if _, err := os.Stat(from.From); errors.Is(err, fs.ErrNotExist) {
		return "", fault.New(fault.Invalid, "%s has no directory %s at %s", git.WithoutCredentials(c.Repo), c.CopyPath, commit)
	}
	return commit, (&stack.Tree{Copies: []stack.Copy{from}}).Write(b.cell.host)
}

// isLocal tells whether git reads a repository without a network.
func isLocal(repo string) bool {
	return strings.HasPrefix(repo, "file://") || filepath.IsAbs(repo)
}

// repositoryVariables tell users of the view spack which packages the image is of.
func (b *spackBuild) repositoryVariables() map[string]*string {
	if b.tree.Version == 1 {
		return nil
	}
	variables := map[string]*string{}
	var names []string
	for _, c := range b.packageClones() {
		names = append(names, c.Name)
		var commit *string
		for i, r := range b.report.Repositories {
			if r.Name == c.Name && r.Commit != "" {
				commit = &b.report.Repositories[i].Commit
			}
		}
		prefixes := []string{"UENV_PACKAGE_REPO_" + strings.ReplaceAll(strings.ToUpper(c.Name), "-", "_")}
		if c.Name == "builtin" {
			prefixes = append(prefixes, "UENV_SPACK_PACKAGES")
		}
		for _, p := range prefixes {
			repo := git.WithoutCredentials(c.Repo)
			variables[p+"_URL"], variables[p+"_REF"], variables[p+"_COMMIT"] = &repo, c.Commit, commit
		}
	}
	all := strings.Join(names, ",")
	variables["UENV_PACKAGE_REPOS"] = &all
	return variables
}
