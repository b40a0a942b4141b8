package build

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/spack"
)

// explain finds the first real error in what a command of Spack said, and adds
// the lines of the package's own log that tell about it.
func (b *spackBuild) explain(e *stepError) error {
	f, ok := spack.ReadFailure(e.log)
	if !ok {
		return e
	}
	err := fault.New(fault.Failure, "%s", f.Message)
	switch {
	case f.Package != "" && f.Phase != "":
		err = fault.New(fault.Failure, "%s failed in phase %s: %s", f.Package, f.Phase, f.Message)
	case f.Package != "":
		err = fault.New(fault.Failure, "%s: %s", f.Package, f.Message)
	}
	if f.Log == "" {
		return err
	}
	log := b.cell.onHost(f.Log)
	lines := tail(log, maxLines)
	if data, readErr := os.ReadFile(log); readErr == nil {
		// Among the logs that may be kept: the build directory will be gone.
		os.WriteFile(filepath.Join(b.cell.logs, "package-"+filepath.Base(f.Package)+".log"), data, 0o644)
	}
	if lines = telling(lines); len(lines) > 0 {
		return fmt.Errorf("%w\n  %s", err, strings.Join(lines, "\n  "))
	}
	return err
}

// maxLines is how many lines of a log are searched for an error.
const maxLines = 10_000

var errorWord = regexp.MustCompile(`(?i)\berror\b|undefined reference|not found|cannot find`)

// telling returns the lines of a log that matter: from shortly before the first
// error, else the last ones.
func telling(lines []string) []string {
	start := slices.IndexFunc(lines, errorWord.MatchString)
	if start < 0 {
		start = len(lines) - errorLines
	}
	start = max(start-2, 0)
	return lines[start:min(start+errorLines, len(lines))]
}
