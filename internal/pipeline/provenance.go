package pipeline

import (
	"context"
	"errors"

	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/meta"
)

// configureType names what a statement about a build tree is about.
const configureType = "https://uenv-ci.dev/configure/v1"

// describe begins the provenance of a tree: what it is made from, and every file
// that is generated or copied.
func (w *treeWriter) describe(ctx context.Context) error {
	p := meta.NewProvenance(configureType, w.options.Versions)
	b := w.options.Build
	p.Predicate.BuildDefinition.ExternalParameters = map[string]any{
		"recipe": w.in.Recipe.Name, "system": w.system(), "uarch": b.UArch, "mount": w.tree.Mount,
	}
	p.Predicate.RunDetails.Metadata.StartedOn = meta.At(w.options.Now)
	w.provenance = p
	if err := dependsOn(ctx, &w.provenance, "recipe", w.in.Recipe.Dir, nil); err != nil {
		return err
	}
	if w.in.Cluster != nil {
		if err := dependsOn(ctx, &w.provenance, "cluster", w.in.Cluster.Dir, nil); err != nil {
			return err
		}
	}
	for _, f := range w.tree.Files {
		w.provenance.Made(f.Path, f.Data)
	}
	details := &w.provenance.Predicate.RunDetails
	for _, c := range w.tree.Copies {
		details.Byproducts = append(details.Byproducts, meta.Resource{Name: c.To})
	}
	for _, c := range w.tree.Clones {
		if c.CopyTo != "" {
			details.Byproducts = append(details.Byproducts, meta.Resource{Name: c.CopyTo})
		}
	}
	return nil
}

// dependsOn records a directory of ours with its revision, and with digests of
// its content if there are any. Without git it is recorded without a revision:
// that is all that can be known.
func dependsOn(ctx context.Context, p *meta.Provenance, name, dir string, content map[string]string) error {
	r := meta.Resource{Name: name, Digest: content}
	c, err := git.Describe(ctx, dir)
	if errors.Is(err, git.ErrNotARepository) {
		p.DependsOn(r, "")
		return nil
	}
	if err != nil {
		return err
	}
	r.Annotations = map[string]any{"path": c.Path, "dirty": c.Dirty}
	if c.Remote != "" {
		r.URI = "git+" + c.Remote
	}
	p.DependsOn(r, c.Commit)
	return nil
}

// system is the name of the cluster.
func (w *treeWriter) system() string {
	if w.in.System == "" && w.in.Cluster != nil {
		return w.in.Cluster.Name
	}
	return w.in.System
}

func (w *treeWriter) summary() Configured {
	done := Configured{
		Name: w.in.Recipe.Name, RecipeVersion: w.in.Recipe.Version, System: w.system(), UArch: w.options.Build.UArch,
		Mount: w.tree.Mount, Dir: w.dir, Provenance: ProvenanceFile, Files: len(w.provenance.Subject),
		Environments: []string{}, Clones: w.clones, Replaced: w.tree.Replaced,
	}
	if done.Clones == nil {
		done.Clones = []Cloned{}
	}
	for _, e := range w.tree.Environments {
		done.Environments = append(done.Environments, e.Name)
	}
	return done
}
