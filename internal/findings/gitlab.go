package findings

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"uenv-ci.dev/internal/fault"
)

// CodeQuality returns problems as a GitLab code quality report, which merge
// requests show beside the lines they change. File names are to be relative to
// the root of the repository.
func CodeQuality(problems fault.Problems) ([]byte, error) {
	issues := []issue{}
	seen := map[string]int{}
	for _, p := range problems {
		i := issue{Description: sentence(p), CheckName: cmp.Or(p.Rule, ruleInvalid), Severity: "major"}
		if p.Severity == fault.Warning {
			i.Severity = "minor"
		}
		i.Location.Path = filepath.ToSlash(filepath.Clean(p.File))
		i.Location.Lines.Begin = max(p.Line, 1)
		// The same problem keeps its fingerprint when lines move; of equal ones
		// in a file the order tells which is which.
		text := fmt.Sprintf("%q %q %q", i.Location.Path, i.CheckName, p.Message)
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", text, seen[text]))
		seen[text]++
		i.Fingerprint = hex.EncodeToString(sum[:])
		issues = append(issues, i)
	}
	return encode(issues)
}

// issue is an entry of the report, see GitLab's documentation, "Code quality
// report format".
type issue struct {
	Description string `json:"description"`
	CheckName   string `json:"check_name"`
	Fingerprint string `json:"fingerprint"`
	Severity    string `json:"severity"`
	Location    struct {
		Path  string `json:"path"`
		Lines struct {
			Begin int `json:"begin"`
		} `json:"lines"`
	} `json:"location"`
}
