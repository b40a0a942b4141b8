package meta

import (
	"cmp"
	"slices"
)

// Newest orders deprecation records, newest first; of two with one time the
// order is arbitrary but always the same.
func Newest(records []Deprecation) {
	slices.SortFunc(records, func(a, b Deprecation) int {
		return cmp.Or(b.When.Compare(a.When.Time), cmp.Compare(a.State, b.State), cmp.Compare(a.Reason, b.Reason))
	})
}

// Holding returns the deprecation that holds according to records, of which the
// newest decides: nil if that took the deprecation back, or there is none.
func Holding(records []Deprecation) *Deprecation {
	sorted := slices.Clone(records)
	Newest(sorted)
	if len(sorted) == 0 || sorted[0].State != Active {
		return nil
	}
	return &sorted[0]
}
