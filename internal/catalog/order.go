package catalog

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Order is how records are sorted. The zero value is by name, then newest version
// first, then tag, system and uarch.
type Order struct {
	by      string
	reverse bool
}

// orders are the comparisons that a user can ask for, each as most want it: the
// newest and the largest first.
var orders = map[string]func(a, b Record) int{
	"name":    compare,
	"date":    func(a, b Record) int { return b.time().Compare(a.time()) },
	"size":    func(a, b Record) int { return cmp.Compare(b.Size, a.Size) },
	"version": func(a, b Record) int { return label.CompareVersions(b.Label.Version, a.Label.Version) },
}

// ParseOrder reads the name of an order: name, date, size or version, with "-"
// before it for the other way round.
func ParseOrder(s string) (Order, error) {
	by, reverse := strings.CutPrefix(s, "-")
	if _, ok := orders[by]; s != "" && !ok {
		return Order{}, fault.New(fault.Usage, "cannot sort by %q: it is name, date, size or version", by)
	}
	return Order{by, reverse}, nil
}

// Sort sorts records; equal ones by name.
func (o Order) Sort(records []Record) {
	order := orders[cmp.Or(o.by, "name")]
	slices.SortStableFunc(records, func(a, b Record) int {
		first := order(a, b)
		if o.reverse {
			first = -first
		}
		return cmp.Or(first, compare(a, b))
	})
}

// time is when the image was made; zero if it does not say.
func (r Record) time() time.Time {
	t, _ := time.Parse(time.RFC3339, r.Created)
	return t
}

// Since keeps the records of images made at t or later.
func Since(records []Record, t time.Time) []Record {
	return slices.DeleteFunc(records, func(r Record) bool { return r.time().Before(t) })
}
