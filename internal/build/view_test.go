package build

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

func prepend(values ...string) []meta.ListOp {
	return []meta.ListOp{{Op: meta.OpPrepend, Value: values}}
}

func TestActivation(t *testing.T) {
	script, err := os.ReadFile("../spack/testdata/activate.sh")
	if err != nil {
		t.Fatal(err)
	}
	b := &spackBuild{job: &job{cell: &cell{Build: buildDir}, tree: &stack.Tree{Version: 1}}, spack: spack.Installation{Dir: buildDir + "/spack"}}
	vars := b.activation(string(script))
	const root = "/user-environment/env/develop"
	for name, want := range map[string][]meta.ListOp{
		"PATH":              prepend(root+"/bin", "/usr/bin", "/bin"),
		"CMAKE_PREFIX_PATH": prepend(root),
		"MANPATH":           prepend("/usr/share/man", root+"/share/man", root+"/man"),
	} {
		if got := vars.List[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if len(vars.Scalar) != 1 || *vars.Scalar["UNITS_HOME"] != root {
		t.Errorf("scalars: %v", vars.Scalar)
	}
	b.tree.Version = 3
	if got, want := b.activation(string(script)).List["PATH"], prepend(root+"/bin"); !reflect.DeepEqual(got, want) {
		t.Errorf("PATH in format 3: %v", got)
	}
}

func TestActivationDropsByComponents(t *testing.T) {
	b := &spackBuild{job: &job{cell: &cell{Build: "/b/x"}, tree: &stack.Tree{Version: 1}}, spack: spack.Installation{Dir: "/b/x/spack"}}
	vars := b.activation("export PATH=/b/x/bin:/b/x2/bin:/b/x;\n")
	if got, want := vars.List["PATH"], prepend("/b/x2/bin"); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestListOp(t *testing.T) {
	for value, want := range map[string]meta.ListOp{
		"":                  {Op: meta.OpSet, Value: []string{}},
		"/a:/b":             {Op: meta.OpSet, Value: []string{"/a", "/b"}},
		"$PATH:/a: ":        {Op: meta.OpAppend, Value: []string{"/a"}},
		"/a//x/../y::$PATH": {Op: meta.OpPrepend, Value: []string{"/a/y"}},
		"$PATH":             {Op: meta.OpAppend, Value: []string{}},
		"$PATHS":            {Op: meta.OpSet, Value: []string{"$PATHS"}},
	} {
		got := listOp(spack.Export{Name: "PATH", Value: value})
		if got.Op != want.Op || len(got.Value) != len(want.Value) || len(want.Value) > 0 && !reflect.DeepEqual(got.Value, want.Value) {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestPrefixPaths(t *testing.T) {
	vars := meta.Variables{List: map[string][]meta.ListOp{"CPATH": prepend("/m/v/include")}}
	view := stack.View{Root: "/m/v", PrefixPaths: []recipe.PrefixPath{
		{Variable: "CPATH", Dirs: []string{"include", "include/x"}},
		{Variable: "LD_LIBRARY_PATH", Dirs: []string{"lib", "none"}},
		{Variable: "OTHER", Dirs: []string{"none"}},
	}}
	got := prefixPaths(vars, view, func(dir string) bool { return filepath.Base(dir) != "none" })
	want := map[string][]meta.ListOp{
		"CPATH":           {{Op: meta.OpPrepend, Value: []string{"/m/v/include"}}, {Op: meta.OpPrepend, Value: []string{"/m/v/include/x"}}},
		"LD_LIBRARY_PATH": prepend("/m/v/lib"),
	}
	if !reflect.DeepEqual(got.List, want) {
		t.Errorf("%v", got.List)
	}
}
