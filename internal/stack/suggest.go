package stack

import (
	"fmt"
	"strings"

	"uenv-ci.dev/internal/schema"
)

// didYouMean returns a hint that names the candidate most like word, or else
// all candidates.
func didYouMean(word string, candidates []string) string {
	if nearest := schema.Nearest(word, candidates); nearest != "" {
		return fmt.Sprintf("did you mean '%s'?", nearest)
	}
	if len(candidates) == 0 {
		return ""
	}
	return "try one of " + strings.Join(candidates, ", ")
}
