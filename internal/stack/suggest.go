package stack

import (
	"strings"

	"uenv-ci.dev/internal/schema"
)

// didYouMean returns a hint that names the candidate most like word, or else
// all candidates.
func didYouMean(word string, candidates []string) string {
	if hint := schema.Suggest(word, candidates); hint != "" || len(candidates) == 0 {
		return hint
	}
	return "try one of " + strings.Join(candidates, ", ")
}
