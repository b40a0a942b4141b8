package site_test

import (
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/yamlpos"
)

const armoured = "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nxx\n-----END PGP PRIVATE KEY BLOCK-----\n"

// binaryKey begins like the packet of a public key.
var binaryKey = base64.StdEncoding.EncodeToString([]byte{0x99, 0x01, 0x0d, 0x04, 0x00})

func mirrors(t *testing.T, version int, text string) (*site.Mirrors, string, error) {
	dir := write(t, map[string]string{"mirrors.yaml": text, "keys/push.asc": armoured, "keys/text": "no key", "boot/metadata/sources/x": "", "empty/x": ""})
	t.Setenv("UENV_CI_TEST_DIR", dir)
	m, err := site.LoadMirrors(filepath.Join(dir, "mirrors.yaml"), version, "/user-environment")
	return m, dir, err
}

func yaml(t *testing.T, v any) string {
	t.Helper()
	text, err := yamlpos.Marshal(v, yamlpos.MarshalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMirrors(t *testing.T) {
	m, dir, err := mirrors(t, 3, `buildcache:
  url: oci://example.org/cache/
  mount_specific: true
  private_key: keys/push.asc
  public_key: `+binaryKey+`
  signed: false
  access_pair: {id: me, secret_variable: TOKEN}
  profile: null
sourcemirror:
  zeta: {url: https://a}
  alpha:
    fetch: https://b
    push: {url: https://c, view: v}
    binary: true
  nothing: {push: https://d}
sourcecache: {path: $UENV_CI_TEST_DIR/src}
concretizer: {path: "${UENV_CI_TEST_DIR}/con"}
bootstrap: {url: file://$UENV_CI_TEST_DIR/boot}
`)
	if err != nil {
		t.Fatal(err)
	}
	connection := "  url: oci://example.org/cache/user-environment\n  access_pair:\n    id: me\n    secret_variable: TOKEN\n"
	if got, want := yaml(t, m.BuildCache.Entry), "source: false\nbinary: true\nfetch:\n"+connection+"push:\n"+connection+"signed: false\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m.BuildCache.Name != "buildcache" || !m.BuildCache.Push || m.BuildCache.Key != "" {
		t.Errorf("%+v", m.BuildCache)
	}
	if len(m.Keys) != 2 || m.Keys[0].Path != "key_store/buildcache.priv.gpg" || !m.Keys[0].Private || string(m.Keys[0].Data) != armoured ||
		m.Keys[1].Path != "key_store/buildcache.pub.gpg" || m.Keys[1].Private || m.Keys[1].Data[0] != 0x99 {
		t.Errorf("%+v", m.Keys)
	}
	var names []string
	for _, s := range m.Sources {
		names = append(names, s.Name)
	}
	if strings.Join(names, " ") != "zeta alpha nothing" {
		t.Errorf("order %v", names)
	}
	if got, want := yaml(t, m.Sources[1].Entry), "source: true\nbinary: true\nfetch:\n  url: https://b\npush:\n  url: https://c\n  view: v\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := yaml(t, m.Sources[2].Entry), "source: true\nbinary: false\nfetch: null\npush:\n  url: https://d\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m.SourceCache != dir+"/src" || m.ConcretizationCache != dir+"/con" || m.Bootstrap.Root != dir+"/boot" || strings.Join(m.Bootstrap.Metadata, " ") != "sources" {
		t.Errorf("%+v %+v", m, m.Bootstrap)
	}
}

func TestMirrorsWithoutKey(t *testing.T) {
	m, _, err := mirrors(t, 2, "buildcache: {name: site, fetch: https://a}\nbootstrap: {url: https://boot}\n")
	if err != nil {
		t.Fatal(err)
	}
	if m.BuildCache.Push || m.BuildCache.Name != "site" || m.Bootstrap.URL != "https://boot" || len(m.Keys) != 0 {
		t.Errorf("%+v", m)
	}
	if got := yaml(t, m.BuildCache.Entry); got != "source: false\nbinary: true\nfetch:\n  url: https://a\npush: null\n" {
		t.Errorf("%s", got)
	}
}

func TestRemoteBootstrap(t *testing.T) {
	for address, remote := range map[string]bool{
		"https://b": true, "oci://b/x": true, "https://b/%zz": true, "https:///x": false, "file://host/x": false, "FILE://host/x": false, "/none": false,
	} {
		m, _, err := mirrors(t, 2, "bootstrap: {url: '"+address+"'}\n")
		if remote && (err != nil || m.Bootstrap.URL != address) || !remote && err == nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestMirrorProblems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no address", "buildcache: {name: x}\n", "mirrors.yaml:1:13: 'buildcache' must be given one of 'url', 'fetch' and 'push'"},
		{"key missing", "buildcache: {url: x, private_key: keys/none!}\n", "mirrors.yaml:1:35: the key of mirror 'buildcache' is neither a file nor base64 text (give the path of a key file, or the key in base64)"},
		{"no key", "buildcache: {url: x, private_key: keys/text}\n", "mirrors.yaml:1:35: the key of mirror 'buildcache' is not a PGP key"},
		{"base64 of no key", "buildcache: {url: x, private_key: c2VjcmV0}\n", "mirrors.yaml:1:35: the key of mirror 'buildcache' is not a PGP key"},
		{"key directory", "buildcache: {url: x, private_key: keys}\n", "mirrors.yaml:1:35: the key of mirror 'buildcache' cannot be read: it is not a regular file"},
		{"two ids", "buildcache: {url: x, access_pair: {id: a, id_variable: b, secret_variable: c}}\n", "mirrors.yaml:1:35: 'buildcache.access_pair' must be given exactly one of 'id' and 'id_variable'"},
		{"mirror name", "buildcache: {url: x, name: ../x}\n", "mirrors.yaml:1:28: 'buildcache.name' must be letters, digits, '_', '-' and '.', not '../x'"},
		{"relative caches", "sourcecache: {path: a}\nconcretizer: {path: $UENV_CI_TEST_UNSET/b}\n", "mirrors.yaml:1:21: the source cache path 'a' is not absolute\nmirrors.yaml:2:21: the concretizer cache path '$UENV_CI_TEST_UNSET/b' is not absolute"},
		{"bootstrap missing", "bootstrap: {url: /none}\n", "mirrors.yaml:1:18: the bootstrap mirror directory '/none' does not exist"},
		{"bootstrap empty", "bootstrap: {url: $UENV_CI_TEST_DIR/empty}\n", "mirrors.yaml:1:18: the bootstrap mirror directory 'empty' has neither 'metadata/sources' nor 'metadata/binaries' (it is made by 'spack bootstrap mirror')"},
		{"unknown", "sourcemirrors: {}\n", "mirrors.yaml:1:1: unknown key 'sourcemirrors' (did you mean 'sourcemirror'?)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, dir, err := mirrors(t, 2, c.text)
			if fault.KindOf(err) != fault.Invalid || strings.ReplaceAll(err.Error(), dir+"/", "") != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
	if _, err := site.LoadMirrors(filepath.Join(t.TempDir(), "none"), 2, "/m"); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
}

func TestCacheOfVersion1(t *testing.T) {
	m, dir, err := mirrors(t, 1, "root: $UENV_CI_TEST_DIR\nkey: $UENV_CI_TEST_DIR/keys/push.asc\n")
	if err != nil {
		t.Fatal(err)
	}
	connection := "  url: file://" + dir + "/user-environment\n  access_pair:\n  - null\n  - null\n  access_token: null\n  profile: null\n  endpoint_url: null\n"
	if got, want := yaml(t, m.BuildCache.Entry), "fetch:\n"+connection+"push:\n"+connection; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m.BuildCache.Name != "alpscache" || !m.BuildCache.Push || m.BuildCache.Key != dir+"/keys/push.asc" || len(m.Keys) != 0 {
		t.Errorf("%+v", m.BuildCache)
	}
	if m, _, err := mirrors(t, 1, "root: $UENV_CI_TEST_DIR\nkey: null\n"); err != nil || !m.BuildCache.Push || m.BuildCache.Key != "" {
		t.Errorf("%v", err)
	}
	m, dir, err = mirrors(t, 1, "root: $UENV_CI_TEST_DIR/./keys//../keys/\nkey: null\n") // written as pathlib writes it
	if err != nil {
		t.Fatal(err)
	}
	if got, want := yaml(t, m.BuildCache.Entry), "  url: file://"+dir+"/keys/../keys/user-environment\n"; strings.Count(got, want) != 2 {
		t.Errorf("got\n%s\nwant twice\n%s", got, want)
	}
	for text, want := range map[string]string{
		"root: cache\nkey: null\n":                        "the build cache path 'cache' is not absolute",
		"root: /none\nkey: null\n":                        "the build cache path '/none' does not exist",
		"root: $UENV_CI_TEST_DIR\nkey: k\n":               "the build cache key path 'k' is not absolute",
		"root: $UENV_CI_TEST_DIR\nkey: /none\n":           "the build cache key '/none' does not exist",
		"root: $UENV_CI_TEST_DIR\n":                       "the key 'key' is missing",
		"buildcache: {url: x}\nroot: /\nkey: null\n":      "unknown key 'buildcache'",
		"root: $UENV_CI_TEST_DIR\nkey: null\nroot: /x/y/": "duplicate key 'root'",
	} {
		if _, _, err := mirrors(t, 1, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCacheOfVersion2(t *testing.T) {
	m, dir, err := mirrors(t, 2, "root: $UENV_CI_TEST_DIR/\nkey: keys/push.asc\n")
	if err != nil {
		t.Fatal(err)
	}
	if fetch, _ := m.BuildCache.Entry.Get("fetch"); yaml(t, fetch) != "url: "+dir+"/user-environment\n" || !m.BuildCache.Push || len(m.Keys) != 1 {
		t.Errorf("%+v", m.BuildCache)
	}
	if len(m.Warnings) != 1 || m.Warnings[0].Rule != "deprecated-cache" {
		t.Errorf("%v", m.Warnings)
	}
}
