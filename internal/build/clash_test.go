package build

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/spack"
)

// linked makes a store with packages and, as Spack would, a view of them: files of
// packages are "text", or "-> target" for links.
func linked(t *testing.T, places map[string]string, packages map[string]map[string]string) foreign {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(file); err == nil {
			return // the first one stays
		}
		err := error(nil)
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		files := packages[name]
		prefix := "x86/" + name + "-1.0-" + name + "hash"
		put(prefix+"/.spack/spec.json", "{}")
		put(filepath.Join("env/v", places[name], ".spack", name, "spec.json"), "-> /m/"+prefix+"/.spack/spec.json")
		for file, text := range files {
			put(filepath.Join(prefix, file), text)
			if !strings.HasSuffix(text, "-> real") { // a directory in views
				put(filepath.Join("env/v", places[name], file), "-> /m/"+prefix+"/"+file)
			}
		}
	}
	root, err := openForeign(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestClashes(t *testing.T) {
	clash := func(kept, lost string, paths ...string) Clash {
		return Clash{View: "v", Kept: kept, Lost: lost, Paths: paths, Files: len(paths)}
	}
	type files = map[string]string
	const namespace = "lib/python3.12/site-packages/space/__init__.py"
	for name, test := range map[string]struct {
		packages map[string]files
		places   map[string]string
		want     []Clash
	}{
		"other content": {
			packages: map[string]files{"aa": {"bin/x": "a", "bin/y": "a"}, "bb": {"bin/x": "b", "bin/z": "b"}},
			want:     []Clash{clash("aa-1.0", "bb-1.0", "bin/x")},
		},
		"the same content": {packages: map[string]files{"aa": {"bin/x": "same"}, "bb": {"bin/x": "same"}}},
		"three packages": {
			packages: map[string]files{"aa": {"lib/x": "a", "lib/y": "a"}, "bb": {"lib/x": "b"}, "cc": {"lib/x": "c", "lib/y": "c"}},
			want:     []Clash{clash("aa-1.0", "bb-1.0", "lib/x"), clash("aa-1.0", "cc-1.0", "lib/x", "lib/y")},
		},
		"a link to the other one": {packages: map[string]files{"aa": {"bin/x": "a"}, "bb": {"bin/x": "-> ../../aa-1.0-aahash/bin/x"}}},
		"links to one program":    {packages: map[string]files{"aa": {"bin/x": "-> /usr/bin/x"}, "bb": {"bin/x": "-> /usr/bin/x"}}},
		"links to two programs": {
			packages: map[string]files{"aa": {"bin/x": "-> /usr/bin/x"}, "bb": {"bin/x": "-> /usr/bin/y"}},
			want:     []Clash{clash("aa-1.0", "bb-1.0", "bin/x")},
		},
		"broken links": {
			packages: map[string]files{"aa": {"bin/x": "-> none"}, "bb": {"bin/x": "-> none"}},
			want:     []Clash{clash("aa-1.0", "bb-1.0", "bin/x")},
		},
		"a link to a directory is that directory": {
			packages: map[string]files{"aa": {"real/x": "a", "lib64": "-> real"}, "bb": {"lib64/x": "b", "lib64/y": "b"}},
			want:     []Clash{{View: "v", Kept: "bb-1.0", Lost: "aa-1.0", Paths: []string{"lib64/x"}, Files: 1}},
		},
		"a link to its own directory": {packages: map[string]files{"aa": {"lib/self": "-> ."}, "bb": {"lib/x": "b"}}},
		"texts and indexes": {
			packages: map[string]files{
				"aa": {"LICENSE": "a", "share/doc/README.md": "a", "share/info/dir": "a", "lib/p/__pycache__/x.pyc": "a"},
				"bb": {"LICENSE": "b", "share/doc/README.md": "b", "share/info/dir": "b", "lib/p/__pycache__/x.pyc": "b"},
			},
		},
		"programs that are called like texts": {
			packages: map[string]files{"aa": {"bin/news": "a"}, "bb": {"bin/news": "b"}},
			want:     []Clash{clash("aa-1.0", "bb-1.0", "bin/news")},
		},
		"a namespace of Python": {
			packages: map[string]files{"aa": {namespace: "# a\n"}, "bb": {namespace: "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"}},
		},
		"a package of Python": {
			packages: map[string]files{"aa": {namespace: "# a\n"}, "bb": {namespace: "version = 1\n"}},
			want:     []Clash{clash("aa-1.0", "bb-1.0", namespace)},
		},
		"told apart by projections": {
			packages: map[string]files{"aa": {"bin/x": "a"}, "bb": {"bin/x": "b"}}, places: map[string]string{"aa": "aa", "bb": "bb/1.0"},
		},
		"projections into one another": {
			packages: map[string]files{"aa": {"bb/bin/x": "a"}, "bb": {"bin/x": "b"}}, places: map[string]string{"bb": "bb"},
			want: []Clash{clash("aa-1.0", "bb-1.0", "bb/bin/x")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			specs := map[string]spack.Spec{}
			for p := range test.packages {
				specs[p+"hash"] = spack.Spec{Name: p, Version: "1.0"}
			}
			f := clashFinder{
				ctx: t.Context(), store: linked(t, test.places, test.packages), mount: "/m", root: "env/v", specs: specs,
				first: map[string]int{}, more: map[string][]int{},
			}
			got, err := f.find("v")
			if err != nil || len(got)+len(test.want) > 0 && !reflect.DeepEqual(got, test.want) {
				t.Errorf("%+v, %v\nwant %+v", got, err, test.want)
			}
			if len(f.packages) != len(test.packages) {
				t.Errorf("packages: %+v", f.packages)
			}
		})
	}
}

func TestManyClashes(t *testing.T) {
	a, b := map[string]string{}, map[string]string{}
	for _, name := range strings.Split("abcdefghijklmno", "") {
		a["bin/"+name], b["bin/"+name] = "a", "b"
	}
	f := clashFinder{
		ctx: t.Context(), store: linked(t, nil, map[string]map[string]string{"aa": a, "bb": b}), mount: "/m", root: "env/v",
		first: map[string]int{}, more: map[string][]int{},
	}
	got, err := f.find("v")
	if err != nil || len(got) != 1 || got[0].Files != 15 || len(got[0].Paths) != maxClashPaths {
		t.Fatalf("%+v, %v", got, err)
	}
	if text := got[0].String(); text != "view v: bin/a is that of aa, bb has another (15 files like this)" {
		t.Error(text)
	}
	got[0].Paths, got[0].Kept = nil, ""
	if text := got[0].String(); strings.Contains(text, "bin/") || !strings.Contains(text, "bb") {
		t.Error(text)
	}
}

// TestClashesOfManyPackages: of a stack of a hundred packages with thousands of files,
// of which many are in several, those are told that differ, and no others.
func TestClashesOfManyPackages(t *testing.T) {
	packages, specs := map[string]map[string]string{}, map[string]spack.Spec{}
	for i := range 100 {
		name := fmt.Sprintf("p%02d", i)
		files := map[string]string{"include/same.h": "same", "LICENSE": name}
		for j := range 60 {
			files[fmt.Sprintf("lib/%s/%d", name, j)] = name
		}
		if i%10 == 0 {
			files[fmt.Sprintf("bin/tool-%d", i/20)] = name // two packages have each
		}
		packages[name], specs[name+"hash"] = files, spack.Spec{Name: name, Version: "1.0"}
	}
	f := clashFinder{
		ctx: t.Context(), store: linked(t, nil, packages), mount: "/m", root: "env/v", specs: specs,
		first: map[string]int{}, more: map[string][]int{},
	}
	got, err := f.find("v")
	var want []Clash
	for i := range 5 {
		want = append(want, Clash{
			View: "v", Kept: fmt.Sprintf("p%d0-1.0", 2*i), Lost: fmt.Sprintf("p%d0-1.0", 2*i+1), Paths: []string{fmt.Sprint("bin/tool-", i)}, Files: 1,
		})
	}
	if err != nil || !reflect.DeepEqual(got, want) || len(f.packages) != 100 {
		t.Errorf("%+v, %v, of %d packages", got, err, len(f.packages))
	}
}
