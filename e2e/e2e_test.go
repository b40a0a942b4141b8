// Package e2e runs scripts over the real command line. Each script in testdata
// runs once; those in testdata/registry run against every kind of registry that
// is to be had here.
//
// A script starts in an empty directory with an empty HOME, a local repository
// and a build root of its own. Run one by go test ./e2e -run /NAME.
package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"uenv-ci.dev/internal/cli"
	"uenv-ci.dev/internal/registrytest"
)

func TestMain(m *testing.M) {
	if os.Getenv(stepVariable) != "" {
		os.Exit(runChild())
	}
	if os.Getenv(programVariable) != "" {
		os.Exit(cli.Main(os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){
		"uenv-ci": func() { os.Exit(cli.Main(os.Args[1:])) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, params("testdata", ""))
}

// layout is the registry that is a directory; the others are registrytest's.
const layout registrytest.Kind = "layout"

var kinds = append([]registrytest.Kind{layout, registrytest.Docker}, registrytest.InProcess...)

func TestRegistries(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			if kind == registrytest.Docker {
				registrytest.DockerRegistry(t)
			}
			testscript.Run(t, params(filepath.Join("testdata", "registry"), kind))
		})
	}
}

// TestRequired fails where a part that must be here is not, so that a machine
// which should run every script does not skip some.
func TestRequired(t *testing.T) {
	for _, name := range strings.FieldsFunc(os.Getenv("UENV_CI_REQUIRE"), func(r rune) bool { return r == ',' }) {
		c, ok := conditions[name]
		if !ok {
			t.Errorf("UENV_CI_REQUIRE names %q, which is none of the parts", name)
			continue
		}
		if err := c(); err != nil {
			t.Errorf("%s is required here: %v", name, err)
		}
	}
}

func params(dir string, kind registrytest.Kind) testscript.Params {
	return testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Condition:          conditionOn(kind),
		Cmds:               commands,
		Setup:              func(env *testscript.Env) error { return setup(env, kind) },
	}
}

// passed on to scripts from the environment of the tests, besides PATH.
var passed = []string{
	"UENV_CI_SPACK", "SPACK_PYTHON", "SPACK_SYSTEM_CONFIG_PATH", "SPACK_USER_CONFIG_PATH", "SPACK_USER_CACHE_PATH", "GOCOVERDIR",
}

func setup(env *testscript.Env, kind registrytest.Kind) error {
	root, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	env.Values[stateKey{}] = &state{t: env.T().(testing.TB), kind: kind}
	for name, value := range map[string]string{
		"HOME":         filepath.Join(env.WorkDir, "home"),
		"ROOT":         root, // of this project
		"FIXTURES":     filepath.Join(root, "e2e", "testdata", "fixtures"),
		"UENV_CI_REPO": filepath.Join(env.WorkDir, "repo"),
		// Images of the scripts are then the same on every run.
		"SOURCE_DATE_EPOCH": "1767225600",
		"USER":              "tester",
		"LC_ALL":            "C.UTF-8",
	} {
		env.Setenv(name, value)
	}
	for _, name := range passed {
		if value, ok := os.LookupEnv(name); ok {
			env.Setenv(name, value)
		}
	}
	return os.MkdirAll(env.Getenv("HOME"), 0o755)
}
