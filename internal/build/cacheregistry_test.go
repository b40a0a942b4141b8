package build_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registrytest"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/testdirs"
)

// ociCache is a build cache in a registry that asks for a password. It returns the
// cache and the address at which Spack reads the same registry, without a password,
// as it knows no basic authentication, and with the file of the certificate.
func ociCache(t *testing.T) (m *site.Mirrors, address, caFile string) {
	t.Helper()
	handler := registrytest.Handler(registrytest.Referrers)
	host, _ := registrytest.ServeTLS(t, registrytest.Basic("cache", "hush-hush")(handler))
	base := testdirs.Visible(t)
	auth := base64.StdEncoding.EncodeToString([]byte("cache:hush-hush"))
	credentials := filepath.Join(base, "credentials.json")
	write(t, credentials, `{"auths": {"`+host+`": {"auth": "`+auth+`"}}}`, 0o600)
	file := filepath.Join(base, "cache.yaml")
	write(t, file, "root: oci://"+host+"/cache\nkey: null\ncredentials: "+credentials+"\n", 0o644)
	m, err := site.LoadMirrors(file, 1, "/user-environment")
	if err != nil {
		t.Fatal(err)
	}
	address, caFile = registrytest.ServeTLS(t, handler)
	return m, address, caFile
}

// TestOCICache fills a build cache in a registry and builds from it. Spack itself
// finds the packages there.
func TestOCICache(t *testing.T) {
	needSpack(t)
	mirrors, address, caFile := ociCache(t)
	protected := func() build.Options {
		o := options(t, "../../recipes/hello-spack/1.0")
		o.Offline, o.Protected, o.Stack.Mirrors, o.CAFile = false, true, mirrors, caFile
		return o
	}
	r := mustBuild(t, protected())
	if c := r.Report.Cache; c == nil || c.Hits != 0 || c.Built == 0 || c.Pushed != c.Built {
		t.Fatalf("the first build: %+v", c)
	}
	first, hash := digests(t, r.Store), ""
	for _, p := range r.Report.Packages {
		if p.Name == "gcc-runtime" { // of Spack's own packages
			hash = p.Hash
		}
	}
	r = mustBuild(t, protected())
	if c := r.Report.Cache; c.Hits == 0 || c.Built != 0 || c.Pushed != 0 {
		t.Errorf("the second build: %+v", c)
	}
	for name, digest := range digests(t, r.Store) {
		if first[name] != digest {
			t.Errorf("%s differs", name)
		}
	}
	o := protected()
	o.NoBuildCache = true
	r = mustBuild(t, o)
	for _, p := range r.Report.Packages {
		if p.Cached {
			t.Errorf("%s is from the build cache", p.Name)
		}
	}
	readBySpack(t, address, caFile, hash)
}

// readBySpack lets Spack list the packages of a registry and install one.
func readBySpack(t *testing.T, address, caFile, hash string) {
	t.Helper()
	scope := t.TempDir()
	write(t, filepath.Join(scope, "mirrors.yaml"), "mirrors:\n  m:\n    url: oci://"+address+"/cache/user-environment\n    binary: true\n    signed: false\n", 0o644)
	write(t, filepath.Join(scope, "config.yaml"), "config:\n  install_tree:\n    root: "+scope+"/installed\n", 0o644)
	env := append(os.Environ(), "SPACK_USER_CONFIG_PATH="+scope, "SPACK_USER_CACHE_PATH="+scope, "SPACK_DISABLE_LOCAL_CONFIG=1", "SSL_CERT_FILE="+caFile)
	spack := func(args ...string) string {
		out, err := proc.Cmd{Path: filepath.Join(os.Getenv("UENV_CI_SPACK"), "bin", "spack"), Args: append([]string{"-C", scope}, args...), Env: env}.Output(t.Context())
		if err != nil {
			t.Fatalf("spack %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := spack("buildcache", "list", "--allarch", "-L"); !strings.Contains(out, hash) {
		t.Errorf("Spack lists %s", out)
	}
	spack("buildcache", "install", "--unsigned", "--otherarch", "/"+hash)
	installed, _ := filepath.Glob(filepath.Join(scope, "installed", "*", "*", "gcc-runtime-*-"+hash, ".spack", "spec.json"))
	if len(installed) != 1 {
		t.Errorf("Spack has not installed %s", hash)
	}
}
