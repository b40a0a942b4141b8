package label

import (
	"cmp"
	"strings"
)

// CompareVersions orders versions and tags as people count: numbers inside them
// by value, so that 24.9 comes before 24.11 and v2 before v10, and a release
// candidate before its release.
func CompareVersions(a, b string) int {
	if a == b {
		return 0
	}
	for a != "" || b != "" {
		aWord, aRest := nextWord(a)
		bWord, bRest := nextWord(b)
		if order := compareWords(aWord, bWord); order != 0 {
			return order
		}
		a, b = aRest, bRest
	}
	return 0
}

// nextWord cuts the first run of digits or of other characters, without the
// separators before it.
func nextWord(s string) (word, rest string) {
	s = strings.TrimLeft(s, ".-_")
	end := 1
	for end < len(s) && isDigit(s[end]) == isDigit(s[0]) && !strings.ContainsRune(".-_", rune(s[end])) {
		end++
	}
	end = min(end, len(s))
	return s[:end], s[end:]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func compareWords(a, b string) int {
	if rank := cmp.Compare(rankOf(a), rankOf(b)); rank != 0 {
		return rank
	}
	if a != "" && isDigit(a[0]) {
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}
	return cmp.Compare(a, b)
}

// rankOf puts what announces a version before its end, and more before less.
func rankOf(word string) int {
	switch {
	case word == "rc" || word == "alpha" || word == "beta" || word == "dev" || word == "pre":
		return 0
	case word == "":
		return 1
	case isDigit(word[0]):
		return 3
	}
	return 2
}
