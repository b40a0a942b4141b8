package meta

import (
	"bytes"
	"encoding/json"
	"slices"

	"uenv-ci.dev/internal/fault"
)

// Env is the content of meta/env.json, which the uenv client reads: where the
// image is to be mounted and which views it offers.
type Env struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Mount       string          `json:"mount"`        // absolute path
	DefaultView string          `json:"default-view"` // "" (null in the file) if there is none
	Modules     *Modules        `json:"modules"`
	Views       map[string]View `json:"views"`
}

// Modules says where the modules of an image are.
type Modules struct {
	Root string `json:"root"`
}

// View is a named way to use an image: a set of changes to the environment.
type View struct {
	Description string     `json:"description"`
	Root        string     `json:"root,omitempty"`
	Activate    string     `json:"activate,omitempty"`
	Type        string     `json:"type,omitempty"`
	Env         *ViewEnv   `json:"env,omitempty"`
	Recipe      *Variables `json:"recipe_variables,omitempty"` // what the recipe adds to Spack's values
}

// ViewEnv wraps a view's variables as the file holds them.
type ViewEnv struct {
	Version int       `json:"version"`
	Type    string    `json:"type,omitempty"`
	Values  Variables `json:"values"`
}

// Variables are changes to environment variables: operations on lists such as
// PATH, and values of scalars, where nil unsets.
type Variables struct {
	List   map[string][]ListOp `json:"list"`
	Scalar map[string]*string  `json:"scalar"`
}

// ListOp is one operation on a list variable.
type ListOp struct {
	Op    string   `json:"op"` // one of the Op constants; the client takes any other as unset
	Value []string `json:"value"`
}

// The operations on lists.
const (
	OpPrepend = "prepend"
	OpAppend  = "append"
	OpSet     = "set"
	OpUnset   = "unset"
)

// MarshalJSON writes empty maps as {}: the client aborts where one is missing.
func (v Variables) MarshalJSON() ([]byte, error) {
	type plain Variables
	p := plain(v)
	if p.List == nil {
		p.List = map[string][]ListOp{}
	}
	if p.Scalar == nil {
		p.Scalar = map[string]*string{}
	}
	return marshal(p)
}

// MarshalJSON writes an empty value as [] since the client rejects null.
func (o ListOp) MarshalJSON() ([]byte, error) {
	type plain ListOp
	if o.Value == nil {
		o.Value = []string{}
	}
	return marshal(plain(o))
}

// MarshalJSON writes what is not set the way upstream does: null.
func (e Env) MarshalJSON() ([]byte, error) {
	type plain Env
	out := struct {
		plain
		Description *string `json:"description"`
		DefaultView *string `json:"default-view"`
	}{plain: plain(e)}
	if e.Description != "" {
		out.Description = &e.Description
	}
	if e.DefaultView != "" {
		out.DefaultView = &e.DefaultView
	}
	if e.Views == nil {
		out.Views = map[string]View{}
	}
	return marshal(out)
}

// Encode returns the file's text: the same bytes for the same content.
func (e Env) Encode() ([]byte, error) { return encode(e) }

// ViewNames returns the names of the views, sorted.
func (e Env) ViewNames() []string {
	names := make([]string, 0, len(e.Views))
	for name := range e.Views {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Overlay returns v with the changes of o on top: scalars of o win, list
// operations of o come after those of v (as upstream adds a recipe's to Spack's).
func (v Variables) Overlay(o Variables) Variables {
	out := Variables{List: map[string][]ListOp{}, Scalar: map[string]*string{}}
	for _, in := range []Variables{v, o} {
		for name, ops := range in.List {
			out.List[name] = append(out.List[name], ops...)
		}
		for name, value := range in.Scalar {
			out.Scalar[name] = value
		}
	}
	return out
}

// SpackView returns a view computed from a Spack environment, with what the
// recipe adds to it already overlaid.
func SpackView(root, description string, v Variables) View {
	return View{Description: description, Root: root, Type: "spack-view", Env: &ViewEnv{Version: 1, Values: v}}
}

// ModulesView returns the view that upstream adds for an image with modules.
func ModulesView(mount string) View {
	root := mount + "/modules"
	return augment("activate modules", root, Variables{
		List: map[string][]ListOp{"MODULEPATH": {{Op: OpPrepend, Value: []string{root}}}},
	})
}

// UpstreamView returns the view that upstream adds to let Spack use an image as
// its upstream; nil scalars unset.
func UpstreamView(mount string, scalars map[string]*string) View {
	root := mount + "/config"
	v := Variables{Scalar: map[string]*string{"UENV_SPACK_CONFIG_PATH": &root}}
	return augment("configure spack upstream", root, v.Overlay(Variables{Scalar: scalars}))
}

func augment(description, root string, v Variables) View {
	return View{
		Description: description, Root: root, Activate: "/dev/null",
		Env: &ViewEnv{Version: 1, Type: "augment", Values: v},
	}
}

// marshal is json.Marshal without the escaping of <, > and &, which would make
// paths and version ranges hard to read.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// encode returns the text of a document: indented by two, one final newline.
func encode(v any) ([]byte, error) {
	compact, err := marshal(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
