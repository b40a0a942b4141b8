package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/meta"
)

// notices lists what needs attention, the most urgent first, then in the order of the
// namespaces.
func (o Options) notices(namespaces []Namespace) []Notice {
	var found []Notice
	released := o.released(namespaces)
	for _, n := range namespaces {
		for _, u := range n.Uenvs {
			for _, c := range u.Cells {
				at := place{u.Name, u.Version, c.System, c.UArch}
				add := func(kind Kind, tag, format string, args ...any) {
					text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ") // one line, whatever a record says
					found = append(found, Notice{kind, at.label(n.Name, tag), text})
				}
				have, known := released[at]
				switch {
				case n.Name == o.Released || released == nil:
					o.about(c, n.Name == o.Released, add)
				case !have.digests[c.Newest.Digest]: // else all is said of the released one
					o.about(c, false, add)
					unpromoted(*c.Newest, have, known, add)
				}
			}
		}
	}
	kinds := Kinds()
	slices.SortStableFunc(found, func(a, b Notice) int {
		return cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind))
	})
	return found
}

// about tells what a cell by itself has to say.
func (o Options) about(c Cell, released bool, add func(kind Kind, tag, format string, args ...any)) {
	if c.Newest == nil {
		why := "the matrix deploys it there"
		if c.Missing == LikeOthers {
			why = "older versions are there"
		}
		add(KindMissing, "", "%s", why)
		return
	}
	switch t := *c.Newest; {
	case t.Problem != "":
		add(KindUnusable, t.Tag, "%s", t.Problem)
	case t.Verdict == meta.Fail:
		add(KindFailing, t.Tag, "%d of %d tests failed", t.Tests.Failed, t.Tests.Total)
	case t.Verdict != meta.Pass && t.Verdict != meta.Waived:
		add(KindUntested, t.Tag, "no test ran on %s", c.System)
	}
	for _, t := range append([]Tagged{*c.Newest}, c.Older...) {
		switch {
		case t.Support == Expired:
			add(KindExpired, t.Tag, "support ended on %s%s", t.Until, t.instead())
		case t.Support == Expiring:
			add(KindExpiring, t.Tag, "supported until %s%s", t.Until, t.instead())
		case t.Support == Deprecated && t.Until != nil:
			add(KindDeprecated, t.Tag, "supported until %s%s", t.Until, t.instead())
		case t.Support == Deprecated:
			add(KindDeprecated, t.Tag, "%s%s", cmp.Or(t.Reason, "nobody says why"), t.instead())
		case released && t.Digest != c.Newest.Digest:
			add(KindSuperseded, t.Tag, "%s is newer, and users are not told", c.Newest.Tag)
		}
	}
}

func (t Tagged) instead() string {
	if t.ReplacedBy == "" {
		return ""
	}
	return ", replaced by " + t.ReplacedBy
}

// have is what is released at a place.
type have struct {
	digests map[digest.Digest]bool
	newest  string // when it was made
}

// released is what is released, by place; nil if that is not reported on.
func (o Options) released(namespaces []Namespace) map[place]have {
	i := slices.IndexFunc(namespaces, func(n Namespace) bool { return n.Name == o.Released })
	if i < 0 {
		return nil
	}
	all := map[place]have{}
	for _, u := range namespaces[i].Uenvs {
		for _, c := range u.Cells {
			if c.Newest == nil {
				continue
			}
			h := have{digests: map[digest.Digest]bool{}}
			for _, t := range append([]Tagged{*c.Newest}, c.Older...) {
				h.digests[t.Digest] = true
				h.newest = max(h.newest, t.Created)
			}
			all[place{u.Name, u.Version, c.System, c.UArch}] = h
		}
	}
	return all
}

func unpromoted(newest Tagged, released have, known bool, add func(kind Kind, tag, format string, args ...any)) {
	switch {
	case !known:
		add(KindUnpromoted, newest.Tag, "%s, and not promoted", newest.Verdict)
	case newest.Created > released.newest:
		add(KindUnpromoted, newest.Tag, "%s, and newer than what is promoted", newest.Verdict)
	}
}
