package report

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
)

// Make reports on namespaces. The first of them with the name of the released one is
// what the others are compared with.
func Make(sources []Source, o Options) Report {
	r := Report{Version: Version, Registry: o.Registry, Day: o.Day, Matrix: o.Matrix, Namespaces: []Namespace{}, Attention: []Notice{}}
	var all []Image
	for _, s := range sources {
		n := Namespace{Name: s.Namespace, From: s.From, At: s.At, Denied: s.Denied, Totals: totalsOf(s.Images)}
		cells := o.cells(s.Images)
		if s.Namespace == o.Released {
			o.addMissing(cells)
		}
		n.Uenvs = o.uenvs(cells)
		n.Targets = targetsOf(cells, s.Images)
		r.Namespaces = append(r.Namespaces, n)
		all = append(all, s.Images...)
	}
	r.Totals = totalsOf(all)
	r.Attention = append(r.Attention, o.notices(r.Namespaces)...)
	return r
}

// place is where an image is, or ought to be: a label without its tag.
type place struct{ name, version, system, uarch string }

func placeOf(l label.Label) place { return place{l.Name, l.Version, l.System, l.UArch} }

func (p place) label(namespace, tag string) label.Label {
	return label.Label{Namespace: namespace, Name: p.name, Version: p.version, Tag: tag, System: p.system, UArch: p.uarch}
}

// compare orders places by name, newest version first, system and uarch.
func (p place) compare(q place) int {
	if order := cmp.Compare(p.name, q.name); order != 0 {
		return order
	}
	return cmp.Or(label.CompareVersions(q.version, p.version), cmp.Compare(q.version, p.version),
		cmp.Compare(p.system, q.system), cmp.Compare(p.uarch, q.uarch))
}

func (o Options) cells(images []Image) map[place]*Cell {
	tagged := map[place][]Tagged{}
	for _, i := range images {
		p := placeOf(i.Label)
		tagged[p] = append(tagged[p], o.tagged(i))
	}
	cells := map[place]*Cell{}
	for p, tags := range tagged {
		slices.SortFunc(tags, newer)
		cells[p] = &Cell{System: p.system, UArch: p.uarch, Newest: &tags[0], Older: tags[1:]}
	}
	return cells
}

func (o Options) tagged(i Image) Tagged {
	t := Tagged{
		Tag: i.Label.Tag, Digest: i.Digest, ID: label.ID(i.Digest), Size: i.Size, Created: i.Created,
		Verdict: cmp.Or(i.Verdict, meta.Untested), Tests: i.Tests, Tested: i.Tested, Support: Supported, Problem: i.Problem,
	}
	if !i.Deprecated {
		return t
	}
	t.Support = Deprecated
	if d := i.Deprecation; d != nil {
		t.Reason, t.ReplacedBy, t.Until = d.Reason, d.Replacement, d.Until
	}
	switch until := t.Until; {
	case until == nil:
	case until.Over(o.Day.Time):
		t.Support = Expired
	case until.Over(o.Day.AddDate(0, 0, o.Soon)):
		t.Support = Expiring
	}
	return t
}

// release matches the tags that are given by hand, and counted: rc1, v1, v2.
var release = regexp.MustCompile(`^(rc|v)[0-9]+$`)

// newer orders tags, newest first. Releases are counted; other tags may be numbers of
// pipelines or hashes, for which only the date tells.
func newer(a, b Tagged) int {
	aReleased, bReleased := release.MatchString(a.Tag), release.MatchString(b.Tag)
	switch {
	case aReleased && bReleased:
		return label.CompareVersions(b.Tag, a.Tag)
	case aReleased:
		return -1
	case bReleased:
		return 1
	}
	return cmp.Or(cmp.Compare(b.Created, a.Created), label.CompareVersions(b.Tag, a.Tag), cmp.Compare(a.Tag, b.Tag))
}

// addMissing adds cells for images that ought to be there.
func (o Options) addMissing(cells map[place]*Cell) {
	why, wanted := InMatrix, o.Wanted
	if o.Matrix == "" {
		why, wanted = LikeOthers, likeOthers(cells)
	}
	for _, l := range wanted {
		if p := placeOf(l); cells[p] == nil {
			cells[p] = &Cell{System: p.system, UArch: p.uarch, Missing: why}
		}
	}
}

// likeOthers returns the places of each uenv's newest version where there are other
// versions of it that are not deprecated. Release candidates do not make a version.
func likeOthers(cells map[place]*Cell) []label.Label {
	newest := map[string]string{}
	for p, c := range cells {
		if strings.HasPrefix(c.Newest.Tag, "rc") {
			continue
		}
		if v, ok := newest[p.name]; !ok || label.CompareVersions(p.version, v) > 0 {
			newest[p.name] = p.version
		}
	}
	var wanted []label.Label
	for p, c := range cells {
		v := newest[p.name]
		if label.CompareVersions(p.version, v) < 0 && c.Newest.Support == Supported {
			p.version = v
			wanted = append(wanted, p.label("", ""))
		}
	}
	return wanted
}

func (o Options) uenvs(cells map[place]*Cell) []Uenv {
	uenvs := []Uenv{}
	for _, p := range slices.SortedFunc(maps.Keys(cells), place.compare) {
		if last := len(uenvs) - 1; last < 0 || uenvs[last].Name != p.name || uenvs[last].Version != p.version {
			uenvs = append(uenvs, Uenv{Name: p.name, Version: p.version, Restricted: o.Restricted != nil && o.Restricted(p.name)})
		}
		last := &uenvs[len(uenvs)-1]
		last.Cells = append(last.Cells, *cells[p])
	}
	return uenvs
}

// targetsOf lists the targets of all cells, with what is on each.
func targetsOf(cells map[place]*Cell, images []Image) []Target {
	type key struct{ system, uarch string }
	of := map[key][]Image{}
	for p := range cells {
		of[key{p.system, p.uarch}] = nil
	}
	for _, i := range images {
		k := key{i.Label.System, i.Label.UArch}
		of[k] = append(of[k], i)
	}
	targets := []Target{}
	for k, images := range of {
		targets = append(targets, Target{k.system, k.uarch, totalsOf(images)})
	}
	slices.SortFunc(targets, func(a, b Target) int { return cmp.Or(cmp.Compare(a.System, b.System), cmp.Compare(a.UArch, b.UArch)) })
	return targets
}

func totalsOf(images []Image) Totals {
	t := Totals{Labels: len(images)}
	seen := map[digest.Digest]bool{}
	for _, i := range images {
		if !seen[i.Digest] {
			seen[i.Digest] = true
			t.Images++
			t.Bytes += i.Size
		}
	}
	return t
}
