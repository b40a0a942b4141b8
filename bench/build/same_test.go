package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// TestSameResult follows the build tree of demo-stack with the commands of the make
// flow, lets the direct engine build the same, and compares: what was concretized,
// what was installed, what is in the views, and what they do to the environment.
// Formats 2 and 3 are those of recipes that pin Spack 0.23: that they are the same with
// Spack 1.x does not follow.
func TestSameResult(t *testing.T) {
	if os.Getenv(spack.Variable) == "" {
		t.Skipf("%s is not set: see docs/spack.md for a Spack to test with", spack.Variable)
	}
	in, err := spack.Open(os.Getenv(spack.Variable))
	if err == nil {
		err = in.Reads(1)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	for _, format := range []int{1, 2, 3} {
		t.Run(fmt.Sprint("format", format), func(t *testing.T) {
			dir, err := os.MkdirTemp(shm, "uenv-ci-same-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			input := stackInput(t, dir, format)
			f := followFlow(t, input, dir, in.Dir)
			r, err := build.Run(t.Context(), build.Options{Stack: input, Root: shm, Offline: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			compareLocks(t, f, r)
			compareViews(t, f, r)
			compareInstalled(t, f, r)
			compareConfig(t, f, r)
			checkLinks(t, f, r)
		})
	}
}

// followFlow builds by the make flow.
func followFlow(t *testing.T, input stack.Input, dir, spackDir string) *flow {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "make.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	f, err := newFlow(input, filepath.Join(dir, "flow"), spackDir, 2, log)
	if err == nil {
		err = f.run(t.Context())
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("%v\n%s", err, text[max(0, len(text)-4000):])
	}
	return f
}

// stackInput is what both sides build.
func stackInput(t *testing.T, dir string, format int) stack.Input {
	t.Helper()
	prefix, err := newPrefix()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(prefix) })
	recipeDir, clusterDir, err := "", "", error(nil)
	if format == 1 {
		recipeDir, clusterDir, err = demoInputs("../..", dir, prefix)
	} else {
		recipeDir, clusterDir, err = formatInputs(t.Context(), "../..", dir, prefix, format)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Load(t.Context(), recipeDir)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := site.LoadCluster(clusterDir)
	if err != nil {
		t.Fatal(err)
	}
	return stack.Input{Recipe: r, Cluster: cluster, Mount: r.Store}
}

func lock(t *testing.T, dir string, env stack.SpackEnvironment) spack.Lock {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, env.Dir, "spack.lock"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := spack.ParseLock(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func recipeEnvironments(f *flow) []stack.SpackEnvironment {
	return slices.DeleteFunc(slices.Clone(f.tree.Environments), func(e stack.SpackEnvironment) bool {
		return e.Kind != stack.KindEnvironment || e.Name == stack.ToolsEnvironment // we pack ourselves
	})
}

// compareLocks compares each environment of the flow with the one that the engine
// made of all that differ in their views only.
func compareLocks(t *testing.T, f *flow, r *build.Result) {
	environments := recipeEnvironments(f)
	if len(environments) != 2 {
		t.Fatalf("%d environments", len(environments))
	}
	ours := lock(t, filepath.Dir(r.Store), environments[0])
	for _, env := range environments {
		if f.tree.Version > 1 {
			ours = lock(t, filepath.Dir(r.Store), env)
		}
		theirs := lock(t, f.dir, env)
		if !reflect.DeepEqual(ours.Specs, theirs.Specs) {
			t.Errorf("%s: we concretized\n%v\nthe make flow\n%v", env.Name, ours.Specs, theirs.Specs)
		}
		byText := func(a, b spack.Root) int { return strings.Compare(a.Spec, b.Spec) }
		slices.SortFunc(ours.Roots, byText)
		slices.SortFunc(theirs.Roots, byText)
		if !slices.Equal(ours.Roots, theirs.Roots) {
			t.Errorf("%s: roots %v and %v", env.Name, ours.Roots, theirs.Roots)
		}
	}
	if len(ours.Specs) < 4 {
		t.Errorf("only %d packages were compared", len(ours.Specs))
	}
}

func compareViews(t *testing.T, f *flow, r *build.Result) {
	for _, env := range recipeEnvironments(f) {
		for _, v := range env.Views {
			ours, theirs := (&flow{tree: f.tree, dir: filepath.Dir(r.Store)}).host(v.Root), f.host(v.Root)
			compareTrees(t, v.Name, ours, theirs)
			a, b := readEnv(t, ours), readEnv(t, theirs)
			if !reflect.DeepEqual(a, b) {
				t.Errorf("env.json of %s: ours is\n%+v\nthe make flow's\n%+v", v.Name, a, b)
			}
			if len(a.Values.List["PATH"]) == 0 {
				t.Errorf("env.json of %s sets no PATH", v.Name)
			}
		}
	}
}

// checkLinks: what is compared has links to the compiler.
func checkLinks(t *testing.T, f *flow, r *build.Result) {
	t.Helper()
	link := (&flow{tree: f.tree, dir: filepath.Dir(r.Store)}).host(f.tree.Mount+"/env/develop") + "/bin/gcc"
	if to, err := os.Readlink(link); err != nil || !strings.Contains(to, "uenv-ci-gcc-") {
		t.Errorf("the view develop links gcc to %q, %v", to, err)
	}
}

func readEnv(t *testing.T, dir string) viewEnv {
	t.Helper()
	var env viewEnv
	text, err := os.ReadFile(filepath.Join(dir, "env.json"))
	if err == nil {
		err = json.Unmarshal(text, &env)
	}
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// compareInstalled compares the packages of the views below their prefixes.
func compareInstalled(t *testing.T, f *flow, r *build.Result) {
	text, err := os.ReadFile(filepath.Join(r.Store, spack.DatabaseFile))
	if err != nil {
		t.Fatal(err)
	}
	installed, err := spack.ParseDatabase(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range installed {
		if s.External {
			continue
		}
		compareTrees(t, s.Name, (&flow{tree: f.tree, dir: filepath.Dir(r.Store)}).host(s.Prefix), f.host(s.Prefix))
	}
}

// compareConfig compares the configuration for users of the image: as what it means,
// without what Spack finds out of the compiler besides its programs.
func compareConfig(t *testing.T, f *flow, r *build.Result) {
	for _, c := range f.tree.Config.Install {
		if f.tree.Version == 1 {
			return // compilers.yaml of Spack's own search has more than is asked of it
		}
		name := strings.TrimPrefix(c.To, "store/")
		ours, theirs := settings(t, filepath.Join(r.Store, name)), settings(t, filepath.Join(f.dir, c.To))
		if ours != theirs {
			t.Errorf("%s: ours is\n%s\nthe make flow's\n%s", name, ours, theirs)
		}
	}
}

var languages = regexp.MustCompile(`(gcc@[0-9.]+) languages:?='[^']*'`)

func settings(t *testing.T, file string) string {
	t.Helper()
	var node *yamlpos.Node
	data, err := os.ReadFile(file)
	if err == nil {
		node, err = yamlpos.Parse(file, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	document, ok := node.Data().(*yamlpos.Map)
	if !ok {
		t.Fatalf("%s has no mapping", file)
	}
	text, err := yamlpos.MarshalJSON(document.Sorted(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return languages.ReplaceAllString(string(text), "$1")
}

// compareTrees compares names, kinds and contents, but for what tells of one build:
// Spack's own directory, and our rewriting of env.json, which is compared as data.
func compareTrees(t *testing.T, what, ours, theirs string) {
	t.Helper()
	a, b := entries(t, ours), entries(t, theirs)
	for _, name := range slices.Sorted(maps.Keys(a)) {
		switch other, ok := b[name]; {
		case !ok:
			t.Errorf("%s: only ours has %s", what, name)
		case other != a[name]:
			t.Errorf("%s: %s is\n%q, the make flow's\n%q", what, name, a[name], other)
		}
		delete(b, name)
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		t.Errorf("%s: ours has no %s", what, name)
	}
}

// buildPaths are the lines of activate.sh that name the build, and the view: the flow
// has one environment for each, in which it is called default.
var buildPaths = regexp.MustCompile(`(?m)^(?:export SPACK_ENV(?:_VIEW)?=|.*/bin/spack|export PATH=).*$`)

func entries(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, file)
		switch {
		case d.Name() == ".spack":
			return fs.SkipDir
		case name == "env.json":
		case d.Type() == fs.ModeSymlink:
			found[name], err = os.Readlink(file)
		case d.IsDir():
			found[name] = "directory"
		default:
			var text []byte
			text, err = os.ReadFile(file)
			found[name] = string(text)
		}
		if name == "activate.sh" {
			found[name] = buildPaths.ReplaceAllString(found[name], "")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
