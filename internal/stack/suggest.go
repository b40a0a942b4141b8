package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// didYouMean returns a hint that names the candidate most like word, or else
// all candidates.
func didYouMean(word string, candidates []string) string {
	best, distance := "", len(word)/2+1
	for _, c := range candidates {
		if d := editDistance(word, c); d < distance {
			best, distance = c, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean '%s'?", best)
	case len(candidates) == 0:
		return ""
	default:
		return "try one of " + strings.Join(candidates, ", ")
	}
}

// editDistance is the number of inserted, deleted and replaced bytes between two words.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// sortedKeys returns the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
