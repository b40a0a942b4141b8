package stack_test

import (
	"errors"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
)

// Check finds what Render finds, of every golden run on every cluster: where a
// recipe does not belong there is much to find.
func TestCheckFindsWhatRenderFinds(t *testing.T) {
	runs := goldenRuns(t)
	errorsFound := 0
	for i, run := range runs {
		loaded, err := recipe.Load(t.Context(), filepath.Join(run.corpus, run.Recipe))
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []goldenRun{run, runs[(i+len(runs)/2)%len(runs)]} {
			cluster, err := site.LoadCluster(filepath.Join(run.corpus, other.Cluster))
			if err != nil {
				t.Fatal(err)
			}
			in := stack.Input{Recipe: loaded, Cluster: cluster, BuildDir: buildDir}
			_, warnings, err := stack.Render(in)
			var found fault.Problems
			if errors.As(err, &found) {
				errorsFound++
			}
			got, err := stack.Check(in)
			if err != nil {
				t.Fatal(err)
			}
			if got.Errors().Error() != found.Error() || got.Warnings().Error() != warnings.Error() {
				t.Errorf("%s on %s: got\n%s\nwant\n%s\n%s", run.Recipe, cluster.Name, got, found, warnings)
			}
		}
	}
	if errorsFound == 0 {
		t.Error("nothing was wrong with any of them")
	}
	if _, err := stack.Check(stack.Input{}); fault.KindOf(err) != fault.Usage {
		t.Errorf("no recipe: got %v", err)
	}
}
