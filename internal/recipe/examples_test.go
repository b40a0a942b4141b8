package recipe_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/recipe"
)

// examples are the recipes of this repository.
var examples = filepath.Join("..", "..", "recipes")

func TestExampleRecipesLoad(t *testing.T) {
	configs, err := filepath.Glob(filepath.Join(examples, "*", "*", "config.yaml"))
	if err != nil || len(configs) == 0 {
		t.Fatalf("no recipes: %v", err)
	}
	for _, config := range configs {
		r, err := recipe.Load(t.Context(), filepath.Dir(config))
		if err != nil {
			t.Errorf("%s:\n%v", config, err)
			continue
		}
		for _, w := range r.Warnings {
			if w.Rule != "moving-branch" {
				t.Errorf("an example should not be doubtful: %v", w)
			}
		}
	}
}

// The example recipe of the script builder installs something that works, with
// and without a C compiler.
func TestHelloBuildsAndPassesItsTests(t *testing.T) {
	dir, err := filepath.Abs(filepath.Join(examples, "hello", "1.0"))
	if err != nil {
		t.Fatal(err)
	}
	withoutCompiler := t.TempDir()
	for _, tool := range []string{"mkdir", "cp", "sed", "chmod"} {
		path, ok := proc.Look(tool)
		if !ok {
			t.Skipf("%s is not installed", tool)
		}
		if err := os.Symlink(path, filepath.Join(withoutCompiler, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range map[string]string{"with what is here": os.Getenv("PATH"), "without a compiler": withoutCompiler} {
		t.Run(name, func(t *testing.T) {
			mount := t.TempDir()
			run(t, filepath.Join(dir, "build"), "PATH="+path, "UENV_MOUNT="+mount, "UENV_SOURCE="+dir, "UENV_JOBS=1")
			out := run(t, filepath.Join(dir, "extra", "test"),
				"PATH="+filepath.Join(mount, "bin")+":"+os.Getenv("PATH"), "MANPATH="+filepath.Join(mount, "share", "man"))
			if strings.Count(out, "\nok ")+1 != 8 || !strings.HasSuffix(out, "1..8\n") {
				t.Errorf("tests reported\n%s", out)
			}
		})
	}
}

func run(t *testing.T, program string, env ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := (proc.Cmd{Path: program, Dir: t.TempDir(), Env: env, Stdout: &out, Stderr: &out}).Run(t.Context()); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, &out)
	}
	return out.String()
}
