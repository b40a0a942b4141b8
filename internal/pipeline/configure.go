package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/stack"
)

// ProvenanceFile is the name of the provenance document of a build tree. It
// stands beside the store, so it is not part of the image.
const ProvenanceFile = "provenance.json"

// ConfigureOptions say which build tree is written, and where.
type ConfigureOptions struct {
	Build    BuildOptions      // of which the recipe, the cluster and what concerns reading them count
	Out      string            // the directory that becomes BUILD
	Versions map[string]string // of this program, for the provenance
	Now      time.Time
}

// Configured is a build tree on disk.
type Configured struct {
	Name          string `json:"name"`
	RecipeVersion int    `json:"recipe_version"`
	System        string `json:"system"`
	UArch         string `json:"uarch,omitempty"`
	Mount         string `json:"mount"`
	Dir           string `json:"dir"`
	Provenance    string `json:"provenance"` // file
	Files         int    `json:"files"`      // generated ones

	Environments []string            `json:"environments"`
	Clones       []Cloned            `json:"clones"`
	Replaced     []stack.Replacement `json:"replaced,omitempty"`
	Warnings     fault.Problems      `json:"warnings,omitempty"`
}

// Cloned is a git repository that the tree needs.
type Cloned struct {
	Name   string `json:"name"`
	Dir    string `json:"dir"` // below that of the tree
	Repo   string `json:"repo"`
	Ref    string `json:"ref,omitempty"`    // "" is the default branch
	Commit string `json:"commit,omitempty"` // what was checked out; "" if it was not cloned
}

// Configure writes the Spack build tree of a recipe for a cluster. A directory
// that is not empty is refused unless an earlier run made it; then it is brought
// up to date.
func Configure(ctx context.Context, o ConfigureOptions) (Configured, error) {
	in, err := o.Build.Load(ctx)
	if err != nil {
		return Configured{}, err
	}
	if in.BuildDir, err = filepath.Abs(o.Out); err != nil {
		return Configured{}, fmt.Errorf("configure: %w", err)
	}
	tree, warnings, err := stack.Render(in)
	if err != nil {
		return Configured{}, fmt.Errorf("configure %s:\n%w", in.Recipe.Name, err)
	}
	if in.Cluster != nil {
		warnings = append(warnings, in.Cluster.Warnings...)
	}
	for _, w := range warnings {
		o.Build.Events.Warn("configure", "%s", w.Plain())
	}
	w := &treeWriter{options: o, in: in, tree: tree, dir: in.BuildDir}
	if err := w.write(ctx); err != nil {
		return Configured{}, fmt.Errorf("configure %s in %s: %w", in.Recipe.Name, o.Out, err)
	}
	done := w.summary()
	done.Warnings = slices.Concat(in.Recipe.Warnings, warnings)
	return done, nil
}

// treeWriter writes one tree.
type treeWriter struct {
	options    ConfigureOptions
	in         stack.Input
	tree       *stack.Tree
	dir        string // absolute
	provenance meta.Provenance
	clones     []Cloned
}

func (w *treeWriter) write(ctx context.Context) error {
	earlier, err := w.claim()
	if err != nil {
		return err
	}
	if err := w.describe(ctx); err != nil {
		return err
	}
	// The document goes first: it tells a run after an interrupted one that the
	// directory is ours, and what is in it.
	if err := w.saveProvenance(); err != nil {
		return err
	}
	if err := removeStale(w.dir, earlier); err != nil {
		return err
	}
	if err := w.tree.Write(w.dir); err != nil {
		return err
	}
	if err := w.clone(ctx); err != nil || w.options.Build.Offline {
		return err
	}
	return w.saveProvenance() // with what was cloned
}

// claim makes the directory, or finds out that an earlier run did. It returns
// the provenance of that run.
func (w *treeWriter) claim() (meta.Provenance, error) {
	var none meta.Provenance
	if within(w.in.Recipe.Dir, w.dir) {
		return none, fault.New(fault.Usage, "the tree cannot be inside of the recipe that it holds a copy of")
	}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return none, err
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil || len(entries) == 0 {
		return none, err
	}
	data, err := os.ReadFile(filepath.Join(w.dir, ProvenanceFile))
	if err == nil {
		p, err := meta.ParseProvenance(data)
		if err == nil && p.Predicate.BuildDefinition.BuildType == configureType {
			return p, nil
		}
	}
	err = fault.New(fault.Refused, "the directory is not empty, and nothing says that an earlier run made it")
	return none, fault.WithHint(err, "choose another directory, or remove this one")
}

func within(dir, candidate string) bool {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	relative, err := filepath.Rel(dir, candidate)
	return err == nil && filepath.IsLocal(relative)
}

// removeStale removes what an earlier run wrote: the new tree may lack it.
func removeStale(dir string, earlier meta.Provenance) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, r := range append(earlier.Subject, earlier.Predicate.RunDetails.Byproducts...) {
		if !filepath.IsLocal(r.Name) || path.Clean(r.Name) == "." {
			continue // not from us
		}
		if err := root.RemoveAll(filepath.FromSlash(r.Name)); err != nil {
			return fmt.Errorf("remove what an earlier run wrote: %w", err)
		}
		// The directories that held it go with it once they are empty.
		for up := path.Dir(r.Name); up != "." && root.Remove(filepath.FromSlash(up)) == nil; up = path.Dir(up) {
		}
	}
	return nil
}

// clone fetches the repositories of the tree and takes from them what it needs.
func (w *treeWriter) clone(ctx context.Context) error {
	for _, c := range w.tree.Clones {
		done := Cloned{Name: c.Name, Dir: c.To, Repo: git.WithoutCredentials(c.Repo)}
		if c.Commit != nil {
			done.Ref = *c.Commit
		}
		if !w.options.Build.Offline {
			commit, err := w.fetch(ctx, c, done.Ref)
			if err != nil {
				return err
			}
			done.Commit = commit
			w.provenance.DependsOn(meta.Resource{Name: c.Name, URI: "git+" + git.WithoutCredentials(c.Repo), Annotations: map[string]any{"reference": done.Ref}}, commit)
		}
		w.clones = append(w.clones, done)
	}
	if w.options.Build.Offline || !w.tree.Modules.FromSpack {
		return nil
	}
	return w.defaultModules()
}

// fetch brings a clone to the commit that its reference stands for now.
func (w *treeWriter) fetch(ctx context.Context, c stack.Clone, reference string) (string, error) {
	dir := filepath.Join(w.dir, filepath.FromSlash(c.To))
	commit, err := git.ResolveRemote(ctx, c.Repo, reference)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return "", err // abbreviated commits are not found, and cloned all the same
	}
	if head, err := git.Describe(ctx, dir); err != nil || head.Path != "." || head.Commit != commit || head.Dirty {
		w.options.Build.Events.Start(c.Name, "clone %s", git.WithoutCredentials(c.Repo))
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
		if commit, err = git.Clone(ctx, c.Repo, reference, dir); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
		w.options.Build.Events.Done(c.Name, "cloned %s", commit)
	}
	if c.CopyPath == "" {
		return commit, nil
	}
	from := stack.Copy{From: filepath.Join(dir, filepath.FromSlash(c.CopyPath)), To: c.CopyTo, Within: dir, Exclude: []string{".git"}}
	if _, err := os.Stat(from.From); errors.Is(err, fs.ErrNotExist) {
		return "", fault.New(fault.Invalid, "%s has no directory %s at %s", git.WithoutCredentials(c.Repo), c.CopyPath, commit)
	}
	return commit, (&stack.Tree{Copies: []stack.Copy{from}}).Write(w.dir)
}

// defaultModules makes the modules.yaml that is Spack's own.
func (w *treeWriter) defaultModules() error {
	tree, err := os.OpenRoot(w.dir) // the clone is a stranger's, and may have links
	if err != nil {
		return err
	}
	defer tree.Close()
	defaults, err := tree.ReadFile("spack/etc/spack/defaults/modules.yaml")
	if err != nil {
		return fmt.Errorf("read Spack's default modules.yaml: %w", err)
	}
	file, err := w.tree.DefaultModules(defaults)
	if err != nil {
		return err
	}
	w.provenance.Made(file.Path, file.Data)
	return (&stack.Tree{Files: []stack.File{file}}).Write(w.dir)
}

func (w *treeWriter) saveProvenance() error {
	data, err := w.provenance.Encode()
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(filepath.Join(w.dir, ProvenanceFile), 0o644, data)
}
