package stack

import "uenv-ci.dev/internal/yamlpos"

// shared returns what is added to the specs of each environment, given what each
// one's own MPI adds. Upstream adds to the list in place: environments that have
// one list of specs, by an alias or a merge key, get what is added for any of them.
func (r *renderer) shared(added [][]string) [][]string {
	groups := map[*yamlpos.Node][]int{}
	for i, env := range r.recipe.Environments {
		specs := env.Node.Get("specs")
		groups[specs] = append(groups[specs], i)
	}
	all := make([][]string, len(added))
	for i, env := range r.recipe.Environments {
		specs := env.Node.Get("specs")
		group := groups[specs]
		if specs == nil || len(group) == 1 {
			all[i] = added[i]
			continue
		}
		for _, other := range group {
			all[i] = append(all[i], added[other]...)
		}
		if i == group[0] && len(all[i]) > 0 {
			r.Warn(specs, "shared-specs", "write the specs out for each of them",
				"the environments '%s' and '%s' have one list of specs, so each gets what the MPI of the other adds",
				env.Name, r.recipe.Environments[group[1]].Name)
		}
	}
	return all
}
