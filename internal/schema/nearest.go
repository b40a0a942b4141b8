package schema

import (
	"strings"
	"unicode/utf8"
)

// Nearest returns the candidate that a misspelt word most likely stands for, ""
// if none is near: at most a third of its letters (but always one) changed, added,
// left out or swapped with their neighbour.
func Nearest(word string, candidates []string) string {
	letters := utf8.RuneCountInString(word)
	if letters < 2 {
		return ""
	}
	best, bestDistance := "", max(letters/3, 1)+1
	for _, c := range candidates {
		if n := utf8.RuneCountInString(c) - letters; n >= bestDistance || -n >= bestDistance {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// Suggest returns the hint that names the candidate that a misspelt word most likely
// stands for, "" if none is near.
func Suggest(word string, candidates []string) string {
	if near := Nearest(word, candidates); near != "" {
		return "did you mean '" + near + "'?"
	}
	return ""
}

// distance is the optimal string alignment distance, in characters.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if max(len(x), len(y)) > 100 {
		return 100 // names are short; do not spend time on hostile ones
	}
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(x)][len(y)]
}
