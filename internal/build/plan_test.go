package build

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/yamlpos"
)

// demoTree renders the recipe demo-stack.
func demoTree(t *testing.T) *stack.Tree {
	t.Helper()
	r, err := recipe.Load(t.Context(), "../../recipes/demo-stack/1.0")
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := site.LoadCluster("../../clusters/debian12")
	if err != nil {
		t.Fatal(err)
	}
	tree, _, err := stack.Render(stack.Input{Recipe: r, Cluster: cluster, BuildDir: buildDir})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestPlanMergesViews(t *testing.T) {
	tree := demoTree(t)
	environments, err := plan(tree)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range environments {
		names = append(names, e.Name)
	}
	if want := []string{"bootstrap", "gcc", "units"}; !slices.Equal(names, want) {
		t.Fatalf("environments %q of %d", names, len(tree.Environments))
	}
	units := environments[2]
	spack, _ := section(units.document)
	view, _ := spack.Get("view")
	if views := view.(*yamlpos.Map); !slices.Equal(views.Keys(), []string{"default", "develop"}) {
		t.Errorf("views %q", views.Keys())
	}
	for i, name := range []string{"default", "develop"} {
		if v := units.Views[i]; v.Name != name || v.SpackName != name {
			t.Errorf("%+v", v)
		}
	}
	text, err := yamlpos.Marshal(view, yamlpos.MarshalOptions{})
	if err != nil || !strings.Contains(string(text), "link: roots") || !strings.Contains(string(text), "link: all") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestPlanKeepsWhatDiffers(t *testing.T) {
	tree := demoTree(t)
	for i, f := range tree.Files {
		if f.Path == "environments/units-2__/spack.yaml" {
			tree.Files[i].Data = []byte(strings.Replace(string(f.Data), "units-cli@1.2", "units-cli@1.1", 1))
		}
	}
	environments, err := plan(tree)
	if err != nil || len(environments) != 4 {
		t.Errorf("%d environments, %v", len(environments), err)
	}
}

func TestDropSpecs(t *testing.T) {
	environments, err := plan(demoTree(t))
	if err != nil {
		t.Fatal(err)
	}
	bootstrap := environments[0]
	bootstrap.dropSpecs("squashfs")
	text, err := yamlpos.Marshal(bootstrap.document, yamlpos.MarshalOptions{})
	if err != nil || strings.Contains(string(text), "squashfs") || !strings.Contains(string(text), "gcc@12.2") || len(bootstrap.Specs) != 1 {
		t.Errorf("%q\n%s, %v", bootstrap.Specs, text, err)
	}
}

func TestCutSpec(t *testing.T) {
	for spec, want := range map[string][3]string{
		"gcc":                       {"gcc", "", ""},
		"gcc@12.3":                  {"gcc", "12.3", ""},
		"gcc@=12.2.0":               {"gcc", "=12.2.0", ""},
		"gcc@12.3 languages=c,c++":  {"gcc", "12.3", " languages=c,c++"},
		"nvhpc@22.11~mpi~blas":      {"nvhpc", "22.11", "~mpi~blas"},
		"squashfs default=zstd":     {"squashfs", "", " default=zstd"},
		"llvm@17 +clang ^ninja@1.1": {"llvm", "17", " +clang ^ninja@1.1"},
	} {
		name, version, rest := cutSpec(spec)
		if got := [3]string{name, version, rest}; got != want {
			t.Errorf("%s: %q", spec, got)
		}
	}
}

func TestSatisfies(t *testing.T) {
	for _, test := range []struct {
		version, wanted string
		want            bool
	}{
		{"12.2.0", "12", true}, {"12.2.0", "12.2", true}, {"12.2.0", "12.2.0", true}, {"12.2.0", "", true},
		{"12.20.0", "12.2", false}, {"12", "12.2", false}, {"12.2.0", "=12.2", false}, {"12.2.0", "=12.2.0", true},
	} {
		if got := satisfies(test.version, test.wanted); got != test.want {
			t.Errorf("%s as %s: %v", test.version, test.wanted, got)
		}
	}
}

func TestToolbox(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "config"), os.DirFS("../../clusters/debian12")); err != nil {
		t.Fatal(err)
	}
	tools, err := readToolbox(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := tools.external("gcc@12.2 languages=c,c++"); !ok || e.prefix != "/usr" || e.version != "12.2.0" {
		t.Errorf("gcc@12.2: %+v, %v", e, ok)
	}
	for _, spec := range []string{"gcc@13", "llvm@12"} {
		if e, ok := tools.external(spec); ok {
			t.Errorf("%s: %+v", spec, e)
		}
	}
	all := func(program string) string { return "/opt/x/bin/" + program }
	same, err := tools.describe("gcc", "12.2.0", "/usr", all)
	if err != nil || !same.cluster || same.paths()["cc"] != "/usr/bin/gcc" {
		t.Errorf("the cluster's own: %+v, %v", same, err)
	}
	other, err := tools.describe("llvm", "17.0.6", "/opt/x", all)
	if err != nil || other.cluster || other.name != "clang" || other.paths()["cxx"] != "/opt/x/bin/clang++" || other.paths()["fc"] != "/opt/x/bin/flang" {
		t.Errorf("another: %+v, %v", other, err)
	}
	if system, _ := other.entry.Get("operating_system"); system != "debian12" {
		t.Errorf("operating system %v", system)
	}
	if _, err := tools.describe("gcc", "13.1.0", "/opt/x", func(string) string { return "" }); err == nil {
		t.Error("a compiler without programs")
	}
	if _, err := tools.describe("zlib", "1", "/opt/x", all); err == nil {
		t.Error("zlib is a compiler")
	}
}

// TestBuildableIsNotSettled: Spack decides between an external and a build.
func TestBuildableIsNotSettled(t *testing.T) {
	node, err := yamlpos.Parse("packages.yaml", []byte("externals:\n- {spec: gcc@12.2.0, prefix: /usr}\n"))
	if err != nil {
		t.Fatal(err)
	}
	tools := &toolbox{externals: map[string][]external{}}
	tools.addExternals("gcc", node)
	if e, ok := tools.external("gcc@12.2"); ok {
		t.Errorf("%+v", e)
	}
}
