package build_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/testdirs"
)

// TestIndexes: a protected build leaves Spack's indexes in the source cache, that of a
// change does not, and who has them builds the same. No package of the recipe is in them.
func TestIndexes(t *testing.T) {
	needSpack(t)
	head, err := git.Head(t.Context(), os.Getenv(spack.Variable))
	if err != nil || head.Dirty {
		t.Skipf("the Spack of the tests is no clean checkout: %+v, %v", head, err)
	}
	sources := filepath.Join(testdirs.Visible(t), "sources")
	with := func(protected bool) *build.Result {
		o := options(t, "../../recipes/hello-spack/1.0")
		o.SourceCache, o.Protected = sources, protected
		return mustBuild(t, o)
	}
	makes := func(r *build.Result) bool {
		return slices.ContainsFunc(r.Report.Stages, func(s build.Stage) bool { return s.Name == "index" })
	}
	dir := filepath.Join(sources, "_spack-index", head.Commit)

	change := with(false)
	if _, err := os.Lstat(dir); err == nil || makes(change) {
		t.Error("a change has written indexes")
	}
	first := with(true)
	if !makes(first) {
		t.Error("a protected build has made none")
	}
	for _, name := range []string{"providers", "tags", "patches"} {
		text, err := os.ReadFile(filepath.Join(dir, name, "builtin-index.json"))
		if err != nil || len(text) == 0 || strings.Contains(string(text), "hello-uenv") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	second := with(false)
	if makes(second) {
		t.Error("it makes them again")
	}
	a, b := digests(t, change.Store), digests(t, second.Store)
	if len(a) != len(b) {
		t.Errorf("%d and %d files", len(a), len(b))
	}
	for name, digest := range a {
		if b[name] != digest {
			t.Errorf("%s differs", name)
		}
	}

	// What others can write to is not believed.
	if err := os.Chmod(filepath.Join(dir, "tags/builtin-index.json"), 0o666); err != nil {
		t.Fatal(err)
	}
	if !makes(with(true)) {
		t.Error("it believes what others can write to")
	}
}
