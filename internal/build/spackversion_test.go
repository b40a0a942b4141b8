package build

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

// TestAccept: which Spack builds which tree. No Spack runs here: that ours is right
// about 1.x is not known.
func TestAccept(t *testing.T) {
	for _, c := range []struct {
		format          int
		tree, installed string
		caches          bool
		refused         string
		warned          bool
	}{
		{format: 1, tree: "0.23", installed: "0.23.1"},
		{format: 1, tree: "0.23", installed: "1.0.1", refused: "recipe format 1 needs"},
		{format: 2, tree: "0.23", installed: "0.23.0"},
		{format: 2, tree: "0.23", installed: "0.22.0", refused: "recipe format 2 needs"},
		{format: 2, tree: "1.0", installed: "0.23.0", refused: "the recipe is for Spack 1.0, and here is 0.23.0"},
		{format: 2, tree: "0.23", installed: "1.1.0", refused: "the recipe is for Spack 0.23"},
		{format: 2, tree: "1.0", installed: "1.1.0", warned: true},
		{format: 2, tree: "1.0", installed: "1.1.0", caches: true, warned: true, refused: "does not know the build caches"},
		{format: 3, tree: "1.1", installed: "1.2.2", warned: true}, // a commit of which no version is known
		{format: 3, tree: "1.1", installed: "1.1.0", refused: "recipe format 3 needs"},
	} {
		v, err := spack.ParseVersion(c.installed)
		if err != nil {
			t.Fatal(err)
		}
		var warnings []string
		o := &Options{Events: func(e event.Event) {
			if e.Kind == event.Warning {
				warnings = append(warnings, e.Message)
			}
		}}
		if c.caches {
			o.ChangeCache = &site.Mirrors{}
		}
		b := &spackBuild{job: &job{Options: o, tree: &stack.Tree{Version: c.format, SpackVersion: c.tree}}}
		err = b.accept(spack.Installation{Version: v, Source: "here"})
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || fault.HintOf(err) == "" || fault.KindOf(err) != fault.Invalid) {
			t.Errorf("%+v: %v", c, err)
		}
		if want := []string{unproven}; c.warned != slices.Equal(warnings, want) {
			t.Errorf("%+v: warned %q", c, warnings)
		}
	}
}

func TestInstallFlags(t *testing.T) {
	for _, c := range []struct {
		format  int
		version string
		want    string
	}{
		{1, "0.23.0", "[[--jobs 3] [--jobs 2]]"},
		{2, "0.23.0", "[[--jobs 3] [--jobs 2]]"},
		{2, "1.0.1", "[[--jobs 3 --concurrent-packages 2]]"},
		{3, "1.2.0", "[[--jobs 5]]"},
	} {
		v, err := spack.ParseVersion(c.version)
		if err != nil {
			t.Fatal(err)
		}
		b := &spackBuild{job: &job{Options: &Options{Jobs: 5}, tree: &stack.Tree{Version: c.format}}, spack: spack.Installation{Version: v}}
		if got := fmt.Sprint(b.installFlags([]int{3, 2})); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestPlanOfGroups: a recipe for Spack 1.2 is one environment with groups, without the
// one that only the upstream tool needs.
func TestPlanOfGroups(t *testing.T) {
	commit := "v1.2.0"
	r := &recipe.Recipe{Name: "x", Version: 3, Store: "/user-environment"}
	r.Spack.Commit = &commit
	r.Compilers.V2 = []recipe.Compiler{{Name: "gcc", Version: "14.2"}}
	r.Environments = []recipe.Environment{{Name: "units", Compilers: []string{"gcc"}, Specs: []string{"units"}, Unify: true, Duplicates: "minimal"}}
	cluster, err := site.LoadCluster("../../bench/build/testdata/cluster")
	if err != nil {
		t.Fatal(err)
	}
	tree, _, err := stack.Render(stack.Input{Recipe: r, Cluster: cluster, BuildDir: buildDir})
	if err != nil {
		t.Fatal(err)
	}
	environments, err := plan(tree)
	if err != nil || len(environments) != 1 {
		t.Fatalf("%d environments, %v", len(environments), err)
	}
	var groups []string
	for _, g := range environments[0].Groups {
		groups = append(groups, g.Name)
	}
	section, _ := section(environments[0].document)
	specs, _ := section.Get("specs")
	if want := []string{"gcc", "units"}; !slices.Equal(groups, want) || len(specs.([]any)) != 2 {
		t.Errorf("groups %q, %d in spack.yaml", groups, len(specs.([]any)))
	}
}
