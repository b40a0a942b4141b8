package build_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/testdirs"
)

func formatConfig(format int, tables string) string {
	return fmt.Sprintf(`name: hello-spack
version: %d
store: /user-environment
spack:
  repo: https://github.com/spack/spack.git
  commit: v0.23.0
  packages:
    tables: {repo: %s, commit: main}
`, format, tables)
}

// formatOptions is how to build hello-spack as a recipe of format 2 or 3 that pins the
// Spack of the tests. Its compiler is built by the system's.
func formatOptions(t *testing.T, format int, files map[string]string) build.Options {
	t.Helper()
	all := map[string]string{
		"config.yaml":       formatConfig(format, packageRepository(t)),
		"compilers.yaml":    "gcc:\n  version: '13.1'\n",
		"environments.yaml": "hello:\n  compiler: [gcc]\n  specs: [hello-uenv]\n  views:\n    default:\n",
		"repo/packages/gcc/package.py": strings.Replace(fakeGCC, `    variant("strip"`, `    variant("profiled", default=False, description="Profiled")
    variant("binutils", default=False, description="Binutils")
    variant("strip"`, 1),
		"repo/packages/hello-uenv/hello.c": "#include <stdio.h>\n#define S(x) #x\n#define T(x) S(x)\nint main(void) { return puts(T(FAKE)) < 0; }\n",
	}
	for name, text := range files {
		all[name] = text
	}
	cluster := filepath.Join(t.TempDir(), "cluster")
	write(t, filepath.Join(cluster, "packages.yaml"), `packages:
  gcc:
    externals:
    - spec: gcc@12.2.0 languages='c,c++'
      prefix: /usr
      extra_attributes:
        compilers: {c: /usr/bin/gcc, cxx: /usr/bin/g++}
  gmake:
    buildable: false
    externals:
    - {spec: gmake@4.3, prefix: /usr}
`, 0o644)
	o := options(t, changed(t, all))
	var err error
	if o.Stack.Cluster, err = site.LoadCluster(cluster); err != nil {
		t.Fatal(err)
	}
	return o
}

// packageRepository makes a git repository of packages.
func packageRepository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tables")
	packages := filepath.Join(dir, "repos/spack_repo/tables")
	write(t, filepath.Join(packages, "repo.yaml"), "repo:\n  namespace: tables\n", 0o644)
	write(t, filepath.Join(packages, "packages/unused/package.py"), "from spack.package import *\n\n\nclass Unused(Package):\n    \"\"\"Nothing.\"\"\"\n", 0o644)
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-q", "-m", "tables"},
	} {
		if err := (proc.Cmd{Path: "git", Args: args, Dir: dir, Env: os.Environ()}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFormatsBuildCompilers: the compiler of a recipe is built, found by what comes
// after it, and known to the users of the image.
func TestFormatsBuildCompilers(t *testing.T) {
	needSpack(t)
	for _, format := range []int{2, 3} {
		t.Run(fmt.Sprint("format", format), func(t *testing.T) {
			r := mustBuild(t, formatOptions(t, format, nil))
			if out := run(t, r, r.Mount+"/env/default/bin/hello"); out != "13.1.0\n" {
				t.Errorf("the program was not built by the compiler of the recipe: %q", out)
			}
			if out := run(t, r, "readlink "+r.Mount+"/env/default/bin/gcc"); !strings.HasPrefix(out, r.Mount+"/") || !strings.Contains(out, "/gcc-13.1.0-") {
				t.Errorf("the view links gcc to %q", out)
			}
			checkPackage(t, r, "gcc", "13.1.0")
			packages := run(t, r, "cat "+r.Mount+"/config/packages.yaml")
			// What format 3 installs leaves the compiler out, in the upstream tool too.
			if strings.Contains(packages, "gcc@13.1.0") != (format == 2) || strings.Contains(packages, "gcc@12.2.0") {
				t.Errorf("packages for users:\n%s", packages)
			}
			commit := r.Meta.Views["spack"].Env.Values.Scalar["UENV_PACKAGE_REPO_TABLES_COMMIT"]
			i := slices.IndexFunc(r.Report.Repositories, func(r build.Repository) bool { return r.Name == "tables" })
			if i < 0 || commit == nil || len(*commit) != 40 || r.Report.Repositories[i].Commit != *commit {
				t.Errorf("the package repository is %v, %+v", commit, r.Report.Repositories)
			}
			if out := run(t, r, "ls "+r.Mount+"/repos/spack_repo/tables/packages"); out != "unused\n" {
				t.Errorf("its packages: %q", out)
			}
		})
	}
}

// TestFormatsSign: the mirror file of formats 2 and 3 names the key of a build cache.
// What is put there is signed by it, and what is taken from there has to be.
func TestFormatsSign(t *testing.T) {
	needSpack(t)
	key := signingKey(t)
	base := testdirs.Visible(t)
	cache := filepath.Join(base, "cache")
	write(t, filepath.Join(base, "mirrors.yaml"), "buildcache:\n  url: file://"+cache+"\n  private_key: "+key+"\n", 0o644)
	o := formatOptions(t, 2, nil)
	o.Protected = true
	var err error
	if o.Stack.Mirrors, err = site.LoadMirrors(filepath.Join(base, "mirrors.yaml"), 2, "/user-environment"); err != nil {
		t.Fatal(err)
	}
	r := mustBuild(t, o)
	dir := filepath.Join(cache, "build_cache")
	if c := r.Report.Cache; c == nil || c.Built == 0 || c.Pushed != c.Built {
		t.Fatalf("the first build: %+v", c)
	}
	if signed := names(t, dir, "*.spec.json.sig"); len(signed) != r.Report.Cache.Pushed || len(names(t, dir, "*.spec.json")) > 0 || len(names(t, dir, "_pgp/*.pub")) != 1 {
		t.Errorf("cache: %q", names(t, dir, "*"))
	}
	if c := mustBuild(t, o).Report.Cache; c.Hits == 0 || c.Built != 0 {
		t.Errorf("the second build: %+v", c)
	}
}

// TestFormat3Cleanup: what only the build needed is not in the image.
func TestFormat3Cleanup(t *testing.T) {
	needSpack(t)
	for cleanup, kept := range map[string]bool{"build": true, "runtime": false} {
		config := formatConfig(3, packageRepository(t)) + "cleanup: " + cleanup + "\n"
		r := mustBuild(t, formatOptions(t, 3, map[string]string{"config.yaml": config}))
		out := run(t, r, "ls -d "+r.Mount+"/*/*/gcc-13* || :; ls "+r.Mount+"/env/default/bin")
		if got := strings.Contains(out, "gcc-13.1.0"); got != kept || !strings.Contains(out, "hello\n") || strings.Contains(out, "\ngcc\n") != kept {
			t.Errorf("cleanup %s left\n%s", cleanup, out)
		}
		named := slices.ContainsFunc(r.Report.Packages, func(p build.Package) bool { return p.Name == "gcc" && p.Version == "13.1.0" })
		if named != kept {
			t.Errorf("cleanup %s: the report has %+v", cleanup, r.Report.Packages)
		}
	}
}

// TestFormatsRefuse: what this engine cannot do, it says before it builds.
func TestFormatsRefuse(t *testing.T) {
	needSpack(t)
	for name, c := range map[string]struct {
		config string
		want   string
		kind   fault.Kind
	}{
		"another Spack":       {strings.Replace(formatConfig(2, "/nowhere"), "v0.23.0", "v1.0.1", 1), "the recipe is for Spack 1.0, and", fault.Invalid},
		"a remote repository": {formatConfig(2, "https://user:secret@example.org/tables.git"), "the package repository https://example.org/tables.git is not on this machine", fault.NotFound},
		"builtin":             {strings.Replace(formatConfig(2, "/nowhere"), "tables:", "builtin:", 1), "no repository beside it can be called builtin", fault.Invalid},
		"no such directory":   {strings.Replace(formatConfig(2, packageRepository(t)), "commit: main", "commit: main, path: other", 1), "has no directory other", fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build.Run(t.Context(), formatOptions(t, 2, map[string]string{"config.yaml": c.config}))
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
				t.Errorf("%v (%v)", err, fault.KindOf(err))
			}
		})
	}
}
