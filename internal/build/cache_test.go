package build_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/testdirs"
)

// cacheFile writes a build cache file for a new directory and loads it.
func cacheFile(t *testing.T, key string) (*site.Mirrors, string) {
	t.Helper()
	base := testdirs.Visible(t)
	root := filepath.Join(base, "cache")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if key == "" {
		key = "null"
	}
	text := "root: " + root + "\nkey: " + key + "\n"
	write(t, filepath.Join(base, "cache.yaml"), text, 0o644)
	m, err := site.LoadMirrors(filepath.Join(base, "cache.yaml"), 1, "/user-environment")
	if err != nil {
		t.Fatal(err)
	}
	return m, filepath.Join(root, "user-environment", "build_cache")
}

// signingKey makes a private key and returns its file.
func signingKey(t *testing.T) string {
	t.Helper()
	gpg, ok := proc.Look("gpg")
	if !ok {
		t.Skip("gpg is not installed: apt-get install gnupg")
	}
	home, err := os.MkdirTemp("", "gpg") // a short path: there will be a socket
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"GNUPGHOME=" + home, "PATH=" + os.Getenv("PATH")}
	t.Cleanup(func() {
		proc.Cmd{Path: "gpgconf", Args: []string{"--kill", "all"}, Env: env}.Output(t.Context())
		os.RemoveAll(home)
	})
	run := func(args ...string) []byte {
		args = append([]string{"--batch", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)
		out, err := proc.Cmd{Path: gpg, Args: args, Env: env}.Output(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	run("--quick-generate-key", "cache@example.org", "rsa2048", "sign", "never")
	file := filepath.Join(testdirs.Visible(t), "key")
	write(t, file, string(run("--armor", "--export-secret-keys")), 0o600)
	return file
}

func load(t *testing.T, dir string) *recipe.Recipe {
	t.Helper()
	r, err := recipe.Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func names(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkIndex lets Spack read the index of a cache, and looks at its digest.
func checkIndex(t *testing.T, dir string, packages int) {
	t.Helper()
	spackDir := os.Getenv("UENV_CI_SPACK")
	home := t.TempDir()
	text, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	script := `import spack.binary_distribution as b, spack.config, spack.database as d
import sys
db = b.BuildCacheDatabase(sys.argv[1])
db._read_from_file(sys.argv[2])
records = db._data.values()
print(sum(r.in_buildcache for r in records), sum(not r.in_buildcache for r in records), b.compute_hash(open(sys.argv[2]).read()))
`
	write(t, filepath.Join(home, "read.py"), script, 0o644)
	env := append(os.Environ(), "SPACK_USER_CONFIG_PATH="+home, "SPACK_USER_CACHE_PATH="+home, "SPACK_DISABLE_LOCAL_CONFIG=1")
	out, err := proc.Cmd{
		Path: filepath.Join(spackDir, "bin", "spack"), Env: env,
		Args: []string{"python", filepath.Join(home, "read.py"), home, filepath.Join(dir, "index.json")},
	}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hash, err := os.ReadFile(filepath.Join(dir, "index.json.hash"))
	fields := strings.Fields(string(out))
	if err != nil || len(fields) != 3 || fields[0] != strconv.Itoa(packages) || fields[1] == "0" || fields[2] != string(hash) {
		t.Errorf("Spack reads %s of %d packages, digest %s, %v: %s", out, packages, hash, err, text)
	}
}

// TestBuildCache fills the protected cache, signed, and builds from it: again, and
// as a change, which leaves it as it is.
func TestBuildCache(t *testing.T) {
	needSpack(t)
	mirrors, dir := cacheFile(t, signingKey(t))
	protected := func() build.Options {
		o := options(t, "../../recipes/hello-spack/1.0")
		o.Protected, o.Stack.Mirrors = true, mirrors
		return o
	}
	r := mustBuild(t, protected())
	if c := r.Report.Cache; c == nil || c.Hits != 0 || c.Built == 0 || c.Pushed != c.Built {
		t.Fatalf("the first build: %+v", c)
	}
	signed := names(t, dir, "*.spec.json.sig")
	if len(signed) != r.Report.Cache.Built || len(names(t, dir, "*.spec.json")) > 0 || len(names(t, dir, "_pgp/*.pub")) != 1 {
		t.Errorf("cache: %q", names(t, dir, "*"))
	}
	checkIndex(t, dir, r.Report.Cache.Pushed)
	first := digests(t, r.Store)
	r = mustBuild(t, protected())
	if c := r.Report.Cache; c.Hits == 0 || c.Built != 0 || c.Pushed != 0 {
		t.Errorf("the second build: %+v", c)
	}
	for name, digest := range digests(t, r.Store) {
		// That a package came from a cache is no difference.
		if first[name] != digest {
			t.Errorf("%s differs", name)
		}
	}

	o := protected()
	own, ownDir := cacheFile(t, "")
	o.Protected, o.ChangeCache = false, own
	o.Stack.Recipe = load(t, changed(t, map[string]string{"environments.yaml": helloEnvironment("hello-uenv cflags=-O1")}))
	before := digests(t, dir)
	r = mustBuild(t, o)
	if c := r.Report.Cache; c.Hits == 0 || c.Built != 1 || c.Pushed != 1 || len(names(t, ownDir, "*.spec.json")) != 1 {
		t.Errorf("a change: %+v; its own cache has %q", c, names(t, ownDir, "*"))
	}
	after := digests(t, dir)
	for name, digest := range after {
		if before[name] != digest {
			t.Errorf("a change changed %s of the protected cache", name)
		}
	}
	if len(before) != len(after) {
		t.Errorf("a change removed something of the protected cache")
	}
}

// TestCacheIsDamaged: a package whose signature is wrong is not installed.
func TestCacheIsDamaged(t *testing.T) {
	needSpack(t)
	mirrors, dir := cacheFile(t, signingKey(t))
	o := options(t, "../../recipes/hello-spack/1.0")
	o.Protected, o.Stack.Mirrors = true, mirrors
	mustBuild(t, o)
	for _, file := range names(t, dir, "*.spec.json.sig") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, strings.Replace(string(data), `"hash_algorithm":"sha256"`, `"hash_algorithm": "sha256"`, 1), 0o644)
	}
	o.Protected = false
	if _, err := build.Run(t.Context(), o); classOf(err) != "signature" {
		t.Errorf("%v", err)
	}
}
