package stack

import (
	"cmp"
	"path"
	"path/filepath"
	"slices"

	"uenv-ci.dev/internal/yamlpos"
)

const reposDir = "store/repos/spack_repo"

// spackClone asks for Spack itself.
func (r *renderer) spackClone() {
	spack := r.recipe.Spack
	r.tree.Clones = append(r.tree.Clones, Clone{Name: "spack", To: "spack", Repo: spack.Repo, Commit: spack.Commit})
}

// repoV1 lays out the one package repository of a version 1 stack: packages of
// the recipe go before those of the cluster.
func (r *renderer) repoV1() {
	r.file("store/repo/repo.yaml", []byte("repo:\n  namespace: alps\n"))
	r.tree.Dirs = append(r.tree.Dirs, "store/repo/packages")
	if r.recipe.PackageRepo != "" {
		r.copyPackages(r.recipe.Dir, r.recipe.PackageRepo, "store/repo/packages")
	}
	for _, dir := range r.in.Cluster.PackageRepos {
		r.copyPackages(dir, dir, "store/repo/packages")
	}
	r.yaml("config/repos.yaml", yamlpos.NewMap("repos", []any{path.Join(r.mount, "repo")}))
}

// reposV2 lays out the package repositories of versions 2 and 3, each under its
// own name, highest precedence first.
func (r *renderer) reposV2() {
	repos, dirs := &yamlpos.Map{}, []any{}
	add := func(name string) {
		dir := path.Join(r.mount, "repos/spack_repo", name)
		repos.Set(name, dir)
		dirs = append(dirs, dir)
	}
	if r.recipe.PackageRepo != "" {
		add("recipe")
		r.packageRepo("recipe", r.recipe.Dir, []string{r.recipe.PackageRepo})
	}
	add("alps")
	r.packageRepo("alps", "", r.in.Cluster.PackageRepos)
	for _, p := range r.recipe.Spack.Packages {
		add(p.Name)
		at := &yamlpos.Node{File: filepath.Join(r.recipe.Dir, "config.yaml")}
		if r.oldSpack() && p.Name == "builtin" {
			r.Fail(at, "give it another name: spack: packages: {NAME: {repo: …}}",
				"Spack %s has packages of its own, so no repository beside it can be called builtin", r.version)
		}
		if !filepath.IsLocal(p.Path) {
			r.Fail(at, "paths are relative to the repository", "the path '%s' of the package repository '%s' leads out of it", p.Path, p.Name)
		}
		r.tree.Clones = append(r.tree.Clones, Clone{
			Name: p.Name, To: "repos/" + p.Name, Repo: p.Repo, Commit: p.Commit,
			CopyPath: p.Path, CopyTo: path.Join(reposDir, p.Name),
		})
	}
	if r.oldSpack() {
		r.yaml("config/repos.yaml", yamlpos.NewMap("repos", dirs))
		return
	}
	r.yaml("config/repos.yaml", yamlpos.NewMap("repos", repos))
}

func (r *renderer) packageRepo(name, within string, dirs []string) {
	to := path.Join(reposDir, name, "packages")
	r.file(path.Join(reposDir, name, "repo.yaml"), []byte("repo:\n  namespace: "+name+"\n  api: v2.0\n"))
	r.tree.Dirs = append(r.tree.Dirs, to)
	for _, dir := range dirs {
		r.copyPackages(cmp.Or(within, dir), dir, to)
	}
}

func (r *renderer) copyPackages(within, repo, to string) {
	r.tree.Copies = append(r.tree.Copies, Copy{
		From: filepath.Join(repo, "packages"), To: to, Within: within, Packages: true,
	})
}

// clusterFilesV1 copies every file of the cluster directory to the
// configuration, except those that are generated.
func (r *renderer) clusterFilesV1(written ...string) {
	for _, name := range r.in.Cluster.OtherFiles {
		if !slices.Contains(written, name) {
			r.tree.Copies = append(r.tree.Copies, Copy{From: r.clusterFile(name), To: "config/" + name})
		}
	}
}
