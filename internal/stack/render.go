package stack

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/yamlpos"
)

// Input is what a build tree is made from.
type Input struct {
	Recipe  *recipe.Recipe
	Cluster *site.Cluster // may be nil for the script builder
	System  string        // name of the cluster; "" = Cluster.Name
	Mount   string        // "" = what the recipe asks for
	// BuildDir is the absolute path of BUILD: hooks and bootstrap mirrors name it.
	BuildDir string
	Mirrors  *site.Mirrors // nil = none
	// Develop says that Spack is its development branch whatever the recipe pins.
	Develop bool
}

// Render makes the build tree. Nothing is read or written: what has to be
// copied or cloned is listed in the tree. It returns warnings that concern the
// combination of recipe and cluster (the recipe's own are in recipe.Warnings),
// and as an error a fault.Problems with everything that is wrong.
func Render(in Input) (*Tree, fault.Problems, error) {
	r, err := newRenderer(in)
	if err != nil {
		return nil, nil, err
	}
	return r.render()
}

// Check finds what Render would find wrong, errors and warnings alike, in half of
// the time. The error is that of an input that is not one.
func Check(in Input) (fault.Problems, error) {
	r, err := newRenderer(in)
	if err != nil {
		return nil, err
	}
	r.dry = true
	_, _, err = r.render()
	if errors.As(err, new(fault.Problems)) {
		err = nil
	}
	return r.Problems, err
}

func (r *renderer) render() (*Tree, fault.Problems, error) {
	switch r.recipe.Version {
	case 1:
		r.renderV1()
	case 2:
		r.renderV2()
	case 3:
		r.renderV3()
	default:
		r.renderScript()
	}
	r.hooks()
	r.meta()
	r.Problems.Sort()
	if err := r.Problems.Err(); err != nil {
		return nil, r.Problems.Warnings(), err
	}
	if r.err != nil {
		return nil, r.Problems.Warnings(), r.err
	}
	return r.tree, r.Problems.Warnings(), nil
}

// renderer collects the tree and the problems of one rendering.
type renderer struct {
	in      Input
	recipe  *recipe.Recipe
	tree    *Tree
	mount   string
	version spackVersion
	yamlpos.Findings
	dry bool  // documents stay empty
	err error // first failure to write a document: a mistake of ours
}

func newRenderer(in Input) (*renderer, error) {
	if in.Recipe == nil {
		return nil, fault.New(fault.Usage, "render the build tree: no recipe")
	}
	script := in.Recipe.Builder == recipe.BuilderScript
	if in.Cluster == nil {
		if !script {
			return nil, fault.New(fault.Usage, "render the build tree of %s: no cluster configuration", in.Recipe.Name)
		}
		in.Cluster = &site.Cluster{}
	}
	if in.System == "" {
		in.System = in.Cluster.Name
	}
	mount := in.Mount
	if mount == "" {
		mount = in.Recipe.Store
	}
	if !path.IsAbs(mount) || path.Clean(mount) == "/" {
		return nil, fault.New(fault.Usage, "the mount point %q must be an absolute path below /", mount)
	}
	if !filepath.IsAbs(in.BuildDir) {
		return nil, fault.New(fault.Usage, "the build directory %q must be an absolute path", in.BuildDir)
	}
	r := &renderer{in: in, recipe: in.Recipe, mount: path.Clean(mount)}
	r.tree = &Tree{
		Version: in.Recipe.Version, Name: in.Recipe.Name, Mount: r.mount, BuildDir: filepath.Clean(in.BuildDir),
		DefaultView: in.Recipe.DefaultView, Cleanup: "none", Dirs: []string{"store", "tmp", "config"},
	}
	if in.Recipe.Cleanup != "" {
		r.tree.Cleanup = in.Recipe.Cleanup
	}
	return r, nil
}

// file adds a file that everybody may read.
func (r *renderer) file(name string, data []byte) {
	r.tree.Files = append(r.tree.Files, File{Path: name, Mode: 0o644, Data: data})
}

// yaml adds a YAML file with the keys in the order of the value.
func (r *renderer) yaml(name string, value any) {
	r.file(name, r.marshal(value, false))
}

// marshal encodes a value as YAML.
func (r *renderer) marshal(value any, sorted bool) []byte {
	if r.dry {
		return nil
	}
	data, err := yamlpos.Marshal(value, yamlpos.MarshalOptions{SortKeys: sorted})
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("write YAML: %w", err)
	}
	return data
}
