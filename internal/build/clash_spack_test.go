package build_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
)

// clashing returns the files of a recipe with the packages aa and bb, which install one
// file each with their names in it, and one that is the same.
func clashing(fileA, fileB, specs, view string) map[string]string {
	files := map[string]string{"environments.yaml": `hello:
  compiler:
  - toolchain: gcc
    spec: gcc@12.2
  unify: false
  specs: [` + specs + `]
  views:
    default: {` + view + `}
`}
	for name, file := range map[string]string{"aa": fileA, "bb": fileB} {
		files["repo/packages/"+name+"/package.py"] = fmt.Sprintf(`import os

from spack.package import *


class %s(Package):
    """A package that is in the way of another one."""

    homepage = "https://uenv-ci.dev"
    has_code = False
    version("2.0")
    version("1.0")

    def install(self, spec, prefix):
        for file, text in {%q: spec.name, "share/common": "the same", "LICENSE": spec.name}.items():
            mkdirp(os.path.dirname(join_path(prefix, file)))
            with open(join_path(prefix, file), "w") as f:
                f.write(text)
`, strings.ToUpper(name[:1])+name[1:], file)
	}
	return files
}

// TestViewClash: what Spack refuses is explained, what it takes silently is told.
func TestViewClash(t *testing.T) {
	needSpack(t)
	for name, test := range map[string]struct {
		files  map[string]string
		strict bool
		class  string
		want   []string // in the error
		warns  bool
	}{
		"same file": {
			files: clashing("bin/tool", "bin/tool", "aa@1.0, bb@1.0", ""),
			warns: true,
		},
		"same file, strict": {
			files: clashing("bin/tool", "bin/tool", "aa@1.0, bb@1.0", ""), strict: true, class: "view",
			want: []string{"views: view default: bin/tool is that of ", " has another"},
		},
		"excluded":    {files: clashing("bin/tool", "bin/tool", "aa@1.0, bb@1.0", "exclude: [bb]"), strict: true},
		"told apart":  {files: clashing("bin/tool", "bin/tool", "aa@1.0, aa@2.0, bb@1.0", "projections: {all: '{name}/{version}'}"), strict: true},
		"other files": {files: clashing("bin/a", "bin/b", "aa@1.0, bb@1.0", ""), strict: true},
		"a file where there is a directory": {
			files: clashing("bin/tool", "bin/tool/x", "aa@1.0, bb@1.0", ""), class: "view",
			want: []string{"install hello: 1 fatal error(s) when merging prefixes", "both project to `bin/tool`"},
		},
		"two versions": {
			files: clashing("bin/tool", "bin/b", "aa@1.0, aa@2.0", ""), class: "view",
			want: []string{"install hello: The environment view in", "two specs project to the same prefix", "aa@=1.0", "aa@=2.0"},
		},
		"two versions at one place": {
			files: clashing("bin/tool", "bin/b", "aa@1.0, aa@2.0", "projections: {all: '{name}'}"), class: "view",
			want: []string{"two specs project to the same prefix"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var report build.Report
			var events log
			o := options(t, changed(t, test.files))
			o.StrictViews, o.Report, o.Events = test.strict, &report, events.sink()
			r, err := build.Run(t.Context(), o)
			if err == nil {
				defer r.Close()
			}
			if classOf(err) != test.class || (err != nil) != (test.class != "") {
				t.Fatalf("class %q: %v", classOf(err), err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if said := strings.Contains(strings.Join(events.lines, "\n"), "warning views: view default: bin/tool is that of"); said != test.warns {
				t.Errorf("said: %q", events.lines)
			}
			if (test.warns || test.strict && err != nil) != (len(report.Clashes) > 0) {
				t.Fatalf("clashes: %+v", report.Clashes)
			}
			for _, c := range report.Clashes {
				// Which of them it is that the view has is up to Spack.
				if c.Lost == "aa-1.0" {
					c.Kept, c.Lost = c.Lost, c.Kept
				}
				if want := (build.Clash{View: "default", Kept: "aa-1.0", Lost: "bb-1.0", Paths: []string{"bin/tool"}, Files: 1}); !reflect.DeepEqual(c, want) {
					t.Errorf("clash: %+v", c)
				}
			}
		})
	}
}
