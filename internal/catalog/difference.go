package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"uenv-ci.dev/internal/meta"
)

// Difference is what changed from one image to another.
type Difference struct {
	Size     [2]int64      `json:"size"`    // of the images, in bytes
	Same     int           `json:"same"`    // packages that are the same to the last bit of their specs
	Rebuilt  int           `json:"rebuilt"` // the same, of other dependencies
	Added    []Package     `json:"added"`
	Removed  []Package     `json:"removed"`
	Changed  []Change      `json:"changed"`
	Compiler [2][]string   `json:"compilers"` // in use, external packages apart
	Views    []ViewChange  `json:"views"`
	Other    []ValueChange `json:"other"` // mount point, default view
	// Unknown is set if one of the images does not list its packages; Partial if
	// only names and versions could be compared.
	Unknown bool `json:"unknown,omitempty"`
	Partial bool `json:"partial,omitempty"`
}

// Change is a package that is in both images, and differs.
type Change struct {
	From Package  `json:"from"`
	To   Package  `json:"to"`
	What []string `json:"what"` // such as "1.14.3 → 1.14.5", "+mpi → ~mpi"
}

// ViewChange is a view that came, went or differs.
type ViewChange struct {
	Name  string        `json:"name"`
	State string        `json:"state"` // added, removed or changed
	Env   []ValueChange `json:"env,omitempty"`
}

// ValueChange is a value that differs; "" is none.
type ValueChange struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// The states of views.
const (
	ViewAdded   = "added"
	ViewRemoved = "removed"
	ViewChanged = "changed"
)

// Compare tells what changed from a to b.
func Compare(a, b Contents) Difference {
	d := Difference{
		Size: [2]int64{a.Size, b.Size}, Compiler: [2][]string{compilers(a), compilers(b)},
		Unknown: !a.Listed || !b.Listed, Partial: a.Partial || b.Partial,
		Added: []Package{}, Removed: []Package{}, Changed: []Change{}, Views: []ViewChange{}, Other: []ValueChange{},
	}
	if !d.Unknown {
		d.packages(a.Packages, b.Packages)
	}
	from, to := envOf(a), envOf(b)
	d.views(from, to)
	for _, v := range []ValueChange{{"mount", from.Mount, to.Mount}, {"default view", from.DefaultView, to.DefaultView}} {
		if v.From != v.To {
			d.Other = append(d.Other, v)
		}
	}
	return d
}

// None tells whether nothing that was compared differs.
func (d Difference) None() bool {
	return len(d.Added)+len(d.Removed)+len(d.Changed)+len(d.Views)+len(d.Other)+d.Rebuilt == 0 && d.Size[0] == d.Size[1]
}

func envOf(c Contents) meta.Env {
	if c.Env == nil {
		return meta.Env{}
	}
	return *c.Env
}

func compilers(c Contents) []string {
	found := map[string]bool{}
	for _, p := range c.Packages {
		if p.Compiler != "" && !p.External {
			found[p.Compiler] = true
		}
	}
	return slices.SortedFunc(maps.Keys(found), strings.Compare)
}

// packages pairs what has one name: first equal hashes, then equal versions, then
// the rest in the order of versions.
func (d *Difference) packages(from, to []Package) {
	left, right := byName(from), byName(to)
	names := slices.Sorted(maps.Keys(left))
	for name := range right {
		if left[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		a, b := left[name], right[name]
		a, b = d.pair(a, b, func(x, y Package) bool { return x.Hash != "" && x.Hash == y.Hash })
		a, b = d.pair(a, b, func(x, y Package) bool { return len(d.what(x, y)) == 0 })
		a, b = d.pair(a, b, func(x, y Package) bool { return x.Version == y.Version })
		a, b = d.pair(a, b, func(Package, Package) bool { return true })
		d.Removed, d.Added = append(d.Removed, a...), append(d.Added, b...)
	}
}

func byName(packages []Package) map[string][]Package {
	found := map[string][]Package{}
	for _, p := range packages {
		found[p.Name] = append(found[p.Name], p)
	}
	return found
}

// pair takes the pairs that fit out of a and b and notes how they differ.
func (d *Difference) pair(a, b []Package, fit func(x, y Package) bool) (restA, restB []Package) {
	b = slices.Clone(b)
	for _, x := range a {
		i := slices.IndexFunc(b, func(y Package) bool { return fit(x, y) })
		if i < 0 {
			restA = append(restA, x)
			continue
		}
		y := b[i]
		b = slices.Delete(b, i, i+1)
		what := d.what(x, y)
		switch {
		case len(what) > 0:
			d.Changed = append(d.Changed, Change{x, y, what})
		case x.Hash == y.Hash:
			d.Same++
		default:
			d.Rebuilt++
		}
	}
	return restA, b
}

// what lists in what two packages differ.
func (d *Difference) what(x, y Package) []string {
	var what []string
	differ := func(a, b string) {
		if a != b {
			what = append(what, fmt.Sprintf("%s → %s", cmp.Or(a, "none"), cmp.Or(b, "none")))
		}
	}
	differ(x.Version, y.Version)
	if d.Partial {
		return what
	}
	names := slices.Collect(maps.Keys(x.Variants))
	for name := range y.Variants {
		if _, both := x.Variants[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		differ(variantOrNone(x, name), variantOrNone(y, name))
	}
	if x.Compiler != y.Compiler {
		differ(withMark(x.Compiler), withMark(y.Compiler))
	}
	differ(x.Target, y.Target)
	if x.External != y.External {
		differ(origin(x.External), origin(y.External))
	}
	return what
}

func variantOrNone(p Package, name string) string {
	value, ok := p.Variants[name]
	if !ok {
		return ""
	}
	return strings.TrimSpace(variantText(name, value))
}

func withMark(compiler string) string {
	if compiler == "" {
		return ""
	}
	return "%" + compiler
}

func origin(external bool) string {
	if external {
		return "of the system"
	}
	return "in the image"
}

func (d *Difference) views(from, to meta.Env) {
	for _, name := range from.ViewNames() {
		if _, both := to.Views[name]; !both {
			d.Views = append(d.Views, ViewChange{Name: name, State: ViewRemoved})
			continue
		}
		if changes := envChanges(valuesOf(from.Views[name]), valuesOf(to.Views[name])); len(changes) > 0 {
			d.Views = append(d.Views, ViewChange{name, ViewChanged, changes})
		}
	}
	for _, name := range to.ViewNames() {
		if _, both := from.Views[name]; !both {
			d.Views = append(d.Views, ViewChange{Name: name, State: ViewAdded})
		}
	}
}

func valuesOf(v meta.View) meta.Variables {
	if v.Env == nil {
		return meta.Variables{}
	}
	return v.Env.Values
}

func envChanges(from, to meta.Variables) []ValueChange {
	a, b := variables(from), variables(to)
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var changes []ValueChange
	for _, name := range names {
		if a[name] != b[name] {
			changes = append(changes, ValueChange{name, a[name], b[name]})
		}
	}
	return changes
}

// variables writes what a view does to each variable.
func variables(v meta.Variables) map[string]string {
	texts := map[string]string{}
	for name, ops := range v.List {
		var parts []string
		for _, op := range ops {
			parts = append(parts, op.Op+" "+strings.Join(op.Value, ":"))
		}
		texts[name] = strings.Join(parts, ", ")
	}
	for name, value := range v.Scalar {
		texts[name] = "unset"
		if value != nil {
			texts[name] = "set " + *value
		}
	}
	return texts
}
