package stack

// renderScript describes a script build: no Spack, the views stand for
// directories that the recipe's program installs into the store.
func (r *renderer) renderScript() {
	env := SpackEnvironment{Name: r.recipe.Name, Kind: KindScript}
	for _, e := range r.recipe.Environments {
		for _, v := range e.Views {
			env.Views = append(env.Views, r.scriptView(v))
		}
	}
	r.tree.Environments = []SpackEnvironment{env}
}
