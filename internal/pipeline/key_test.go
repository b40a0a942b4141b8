package pipeline_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/proc"
)

// keyOfJob is the key that the build of a plan's job has.
func keyOfJob(t *testing.T, root string, j plan.Job, clusterFor func(string, int) string, pack image.PackOptions, o pipeline.KeyOptions) pipeline.ContentKey {
	t.Helper()
	k, err := pipeline.KeyOfBuild(t.Context(), pipeline.BuildOptions{
		Recipe: filepath.Join(root, j.Recipe), Mount: j.Mount, Options: build.Options{System: j.System, UArch: j.UArch},
		ClusterFor: func(recipeVersion int) (string, error) { return clusterFor(j.System, recipeVersion), nil },
	}, pack, o)
	if err != nil {
		t.Fatalf("%s: %v", j.ID, err)
	}
	return k
}

func sameKey(t *testing.T, j plan.Job, k pipeline.ContentKey) {
	t.Helper()
	if k.Key != j.Key || !slices.Equal(k.Unresolved, j.Unresolved) || !slices.Equal(k.Sources, j.Sources) {
		t.Errorf("%s: the build has key %q (%v), the plan %q (%v)", j.ID, k.Key, k.Unresolved, j.Key, j.Unresolved)
	}
}

// A build has the key of its job in a plan, whatever goes into it.
func TestBuildHasTheKeyOfThePlan(t *testing.T) {
	root := smallMatrix(t)
	clusterFor := func(system string, _ int) string { return filepath.Join(root, "clusters", system) }
	seen := map[string]bool{}
	for _, c := range []struct {
		pack      image.PackOptions
		variables map[string]string
	}{
		{}, {pack: image.PackOptions{Level: 9}}, {pack: image.PackOptions{BlockSize: 1 << 20}}, {variables: map[string]string{"A": "b", "C": ""}},
	} {
		p := smallPlan(t, root, func(o *pipeline.PlanOptions) {
			o.Pack.Level, o.Pack.BlockSize, o.Variables = c.pack.Level, c.pack.BlockSize, c.variables
		})
		for _, j := range p.Jobs {
			sameKey(t, j, keyOfJob(t, root, j, clusterFor, c.pack, pipeline.KeyOptions{Variables: c.variables, Offline: true}))
			if len(j.Key) != 64 || seen[j.Key] {
				t.Errorf("%s has key %q, seen before: %t", j.ID, j.Key, seen[j.Key])
			}
			seen[j.Key] = true
		}
	}
}

// Branches are resolved as for a plan; without asking there is no key.
func TestBuildResolvesBranches(t *testing.T) {
	root := smallMatrix(t)
	clusterFor := func(system string, _ int) string { return filepath.Join(root, "clusters", system) }
	spack := t.TempDir()
	commitAll(t, spack, "first")
	if err := (proc.Cmd{Path: "git", Args: []string{"-C", spack, "branch", "release"}, Env: os.Environ()}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tools", "more"} {
		writeTree(t, root, map[string]string{"recipes/" + name + "/mc/config.yaml": "name: " + name + "\nversion: 2\nspack: {repo: 'file://" + spack + "', commit: null, packages: {repo: 'file://" + spack + "', commit: release}}\n"})
	}
	online := smallPlan(t, root, func(o *pipeline.PlanOptions) { o.Offline = false }).Jobs
	offline := smallPlan(t, root, same).Jobs
	if len(online) != 2 || len(offline) != 2 {
		t.Fatalf("%d jobs, %d offline", len(online), len(offline))
	}
	for i, j := range online {
		sameKey(t, j, keyOfJob(t, root, j, clusterFor, image.PackOptions{}, pipeline.KeyOptions{}))
		sameKey(t, offline[i], keyOfJob(t, root, j, clusterFor, image.PackOptions{}, pipeline.KeyOptions{Offline: true}))
		if len(j.Key) != 64 || offline[i].Key != "" || len(offline[i].Unresolved) != 2 {
			t.Errorf("%s: key %q, offline %q, %v", j.ID, j.Key, offline[i].Key, offline[i].Unresolved)
		}
	}
	first := online[0].Sources[0].Commit
	commitAll(t, spack, "second")
	remembered := pipeline.KeyOptions{Resolve: func(context.Context, string, string) (string, error) { return first, nil }}
	sameKey(t, online[0], keyOfJob(t, root, online[0], clusterFor, image.PackOptions{}, remembered))
	for _, j := range online {
		if k := keyOfJob(t, root, j, clusterFor, image.PackOptions{}, pipeline.KeyOptions{}); k.Key == j.Key || k.Key == "" {
			t.Errorf("%s: the branch has moved, the key is %q", j.ID, k.Key)
		}
	}
}

func TestBuildsOfTheRealMatrixHaveTheKeysOfThePlan(t *testing.T) {
	root, clusterFor := realMatrix(t), corpusClusters(t)
	p, err := pipeline.Plan(t.Context(), pipeline.PlanOptions{
		Matrix: filepath.Join(root, "config.yaml"), Select: plan.Selection{Deployed: true}, ClusterFor: clusterFor, Offline: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	for _, j := range p.Jobs {
		sameKey(t, j, keyOfJob(t, root, j, clusterFor, image.PackOptions{}, pipeline.KeyOptions{Offline: true}))
		if j.Key != "" {
			keys++
		}
	}
	if keys == 0 {
		t.Error("no job of the matrix has a key")
	}
}

// What is shown of sources has no credentials in it.
func TestSourcesAreShownWithoutCredentials(t *testing.T) {
	root := smallMatrix(t)
	config := "name: tools\nversion: 2\nspack: {repo: 'https://me:canary@example.org/s', commit: v1, packages: {repo: 'https://example.org/p', commit: v1}}\n"
	writeTree(t, root, map[string]string{"recipes/tools/mc/config.yaml": config})
	j := smallPlan(t, root, same).Jobs[0]
	k := keyOfJob(t, root, j, func(system string, _ int) string { return filepath.Join(root, "clusters", system) }, image.PackOptions{}, pipeline.KeyOptions{Offline: true})
	if len(k.Unresolved) != 2 || strings.Contains(strings.Join(k.Unresolved, k.Sources[0].Repo), "canary") {
		t.Errorf("got %+v", k)
	}
}
