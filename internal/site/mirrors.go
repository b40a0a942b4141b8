package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

// Mirrors are the resolved mirrors and caches of a build: keys are read, paths
// expanded, URLs final. A nil *Mirrors means none.
type Mirrors struct {
	// BuildCache is the binary cache; nil = none.
	BuildCache *BuildCache
	// Sources are the read-only source mirrors in file order.
	Sources []Mirror
	// SourceCache is the absolute path for config:source_cache, "" = none.
	SourceCache string
	// ConcretizationCache is the absolute path for
	// concretizer:concretization_cache, "" = none. Only Spack 1.1 and newer knows it.
	ConcretizationCache string
	// Bootstrap is where Spack bootstraps from; nil = Spack's defaults.
	Bootstrap *Bootstrap
	// Keys are the files of the key store.
	Keys []KeyFile
	// Warnings are deprecations and the like.
	Warnings fault.Problems
}

// Mirror is one entry of Spack's mirrors.yaml.
type Mirror struct {
	Name string
	// Entry is the value below Name in mirrors.yaml, ready to be written.
	Entry *yamlpos.Map
}

// BuildCache is the mirror for binaries.
type BuildCache struct {
	Mirror
	Push bool // packages are pushed to it
	// Key is the path of the private key given by a version 1 cache file, ""
	// otherwise: versions 2 and 3 put it among Mirrors.Keys.
	Key string
	// Credentials is a file in the form of docker's config.json for a cache in a
	// registry, "" for docker's own.
	Credentials string
}

// Bootstrap is a bootstrap mirror: remote (URL) or local (Root).
type Bootstrap struct {
	URL  string
	Root string
	// Metadata are those of "sources" and "binaries" that exist below Root/metadata.
	Metadata []string
}

// KeyFile is a key to be written below the configuration directory.
type KeyFile struct {
	Path    string // key_store/<name>.priv.gpg or key_store/<name>.pub.gpg
	Private bool
	Data    []byte
	// File is where it was read: a file of its own, or, if Inline, the mirror file.
	File   string
	Inline bool
}

// LoadMirrors reads the mirror file for a recipe version and a mount point: a
// mirrors.yaml for versions 2 and 3, a build cache file (see loadCache) for
// version 1. A build cache file is accepted for versions 2 and 3 too.
func LoadMirrors(path string, recipeVersion int, mount string) (*Mirrors, error) {
	if recipeVersion == 1 {
		return loadCache(path, recipeVersion, mount)
	}
	m, r, document, err := openMirrors(path, mount)
	if err != nil {
		return nil, err
	}
	if document.Get("root") != nil {
		return loadCache(path, recipeVersion, mount)
	}
	r.Add(mirrorsFormat.Validate(document)...)
	m.buildCache(r, document.Get("buildcache"))
	for _, p := range yamlpos.Pairs(document.Get("sourcemirror")) {
		m.Sources = append(m.Sources, Mirror{p.Key.Text(), r.entry(p.Value, true, "")})
	}
	m.SourceCache = r.absolute(document.Get("sourcecache").Get("path"), "source cache")
	m.ConcretizationCache = r.absolute(document.Get("concretizer").Get("path"), "concretizer cache")
	m.bootstrap(r, document.Get("bootstrap").Get("url"))
	if m.Warnings, err = r.finish(); err != nil {
		return nil, err
	}
	return m, nil
}

// mirrorReader reads a mirror or build cache file.
type mirrorReader struct {
	reader
	dir   string // of the file: what relative key paths refer to
	mount string
}

func openMirrors(path, mount string) (*Mirrors, *mirrorReader, *yamlpos.Node, error) {
	r := &mirrorReader{dir: filepath.Dir(path), mount: mount}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, fault.New(fault.NotFound, "the mirror configuration '%s' does not exist", path)
	}
	document := r.document(path)
	if document == nil {
		_, err := r.finish()
		return nil, nil, nil, err
	}
	return &Mirrors{}, r, document, nil
}

func (r *mirrorReader) expand(n *yamlpos.Node) string { return expand(n.Text()) }

// absolute returns a path that must be absolute once variables are expanded.
func (r *mirrorReader) absolute(n *yamlpos.Node, what string) string {
	if n == nil {
		return ""
	}
	path := r.expand(n)
	if !filepath.IsAbs(path) {
		r.Fail(n, "", "the %s path '%s' is not absolute", what, path)
	}
	return path
}

func (m *Mirrors) buildCache(r *mirrorReader, n *yamlpos.Node) {
	if n == nil || n.Kind != yamlpos.Mapping {
		return
	}
	name := "buildcache"
	if s, ok := n.Get("name").Str(); ok {
		name = s
	}
	mount := ""
	if n.Get("mount_specific").Bool(false) {
		mount = r.mount
	}
	m.BuildCache = &BuildCache{Mirror: Mirror{name, r.entry(n, false, mount)}}
	if key := n.Get("private_key"); !key.IsNull() {
		m.BuildCache.Push = true
		m.addKey(r, key, name, true)
	}
	if key := n.Get("public_key"); !key.IsNull() {
		m.addKey(r, key, name, false)
	}
}

// entry returns a mirror as Spack's mirrors.yaml wants it. Sources are what it
// holds unless it says otherwise, or else binaries.
func (r *mirrorReader) entry(n *yamlpos.Node, sources bool, mount string) *yamlpos.Map {
	entry := yamlpos.NewMap(
		"source", n.Get("source").Bool(sources), "binary", n.Get("binary").Bool(!sources),
		"fetch", connection(n, "fetch", mount), "push", connection(n, "push", mount))
	for _, flag := range []string{"signed", "autopush"} {
		if v := n.Get(flag); v != nil {
			entry.Set(flag, v.Value)
		}
	}
	return entry
}

// connection returns how to reach a mirror for fetching or pushing: what stands
// below that key, else what stands beside it. nil if there is no address.
func connection(n *yamlpos.Node, key, mount string) any {
	var c *yamlpos.Map
	switch given := n.Get(key); {
	case given == nil:
		c = &yamlpos.Map{}
		for _, k := range []string{"url", "view", "profile", "endpoint_url", "access_token_variable", "access_pair"} {
			if v := n.Get(k); !v.IsNull() {
				c.Set(k, v.Data())
			}
		}
	case given.Kind == yamlpos.Mapping:
		c, _ = given.Data().(*yamlpos.Map)
	default:
		c = yamlpos.NewMap("url", given.Value)
	}
	address, ok := c.Get("url")
	if !ok {
		return nil
	}
	if s, isText := address.(string); isText && mount != "" {
		c.Set("url", strings.TrimRight(s, "/")+"/"+strings.TrimLeft(mount, "/"))
	}
	return c
}

// bootstrap resolves the bootstrap mirror: an address, or a directory made by
// `spack bootstrap mirror`.
func (m *Mirrors) bootstrap(r *mirrorReader, n *yamlpos.Node) {
	address, ok := n.Str()
	if !ok {
		return
	}
	if isRemote(address) {
		m.Bootstrap = &Bootstrap{URL: address}
		return
	}
	root := purePath(expand(strings.TrimPrefix(address, "file://")))
	if !isDir(root) {
		r.Fail(n, "", "the bootstrap mirror directory '%s' does not exist", root)
		return
	}
	m.Bootstrap = &Bootstrap{Root: root}
	for _, sub := range []string{"sources", "binaries"} {
		if isDir(filepath.Join(root, "metadata", sub)) {
			m.Bootstrap.Metadata = append(m.Bootstrap.Metadata, sub)
		}
	}
	if len(m.Bootstrap.Metadata) == 0 {
		r.Fail(n, "it is made by 'spack bootstrap mirror'", "the bootstrap mirror directory '%s' has neither 'metadata/sources' nor 'metadata/binaries'", root)
	}
}

// isRemote reports whether an address names a host, and is not one of a file.
func isRemote(address string) bool {
	scheme, rest, ok := strings.Cut(address, "://")
	return ok && scheme != "" && !strings.EqualFold(scheme, "file") && strings.IndexAny(rest+"/", "/?#") > 0
}

// purePath drops empty and "." components of a path, as Python's pathlib does. It
// leaves "..", which may follow a link.
func purePath(p string) string {
	parts := strings.Split(p, "/")
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" || part == "." })
	clean := strings.Join(parts, "/")
	if filepath.IsAbs(p) {
		return "/" + clean
	}
	return clean
}

// loadCache reads a build cache file: `root` and `key`, the way of version 1,
// deprecated in versions 2 and 3.
func loadCache(path string, recipeVersion int, mount string) (*Mirrors, error) {
	m, r, document, err := openMirrors(path, mount)
	if err != nil {
		return nil, err
	}
	r.Add(cacheFormat.Validate(document)...)
	if recipeVersion == 1 {
		m.cacheV1(r, document)
	} else {
		m.cacheV2(r, document)
	}
	if m.Warnings, err = r.finish(); err != nil {
		return nil, err
	}
	return m, nil
}

// cacheV1 makes the mirror that version 1 calls alpscache. It is pushed to
// whether there is a key or not.
// cacheOCI is a build cache in a registry. There Spack does not sign.
func (m *Mirrors) cacheOCI(r *mirrorReader, document *yamlpos.Node, root string) {
	if key := document.Get("key"); !key.IsNull() {
		r.Fail(key, "", "packages in a registry are not signed: 'key' has to be null")
	}
	connection := yamlpos.NewMap("url", strings.TrimRight(root, "/")+r.mount)
	m.BuildCache = &BuildCache{Mirror: Mirror{"alpscache", yamlpos.NewMap("fetch", connection, "push", connection)}, Push: true}
	if c := document.Get("credentials"); c != nil {
		m.BuildCache.Credentials = r.absolute(c, "credentials of the build cache")
	}
}

func (m *Mirrors) cacheV1(r *mirrorReader, document *yamlpos.Node) {
	if root := r.expand(document.Get("root")); strings.HasPrefix(root, "oci://") {
		m.cacheOCI(r, document, root)
		return
	}
	root := purePath(r.absolute(document.Get("root"), "build cache"))
	if filepath.IsAbs(root) && !isDir(root) {
		r.Fail(document.Get("root"), "", "the build cache path '%s' does not exist", root)
	}
	connection := func() *yamlpos.Map {
		return yamlpos.NewMap("url", "file://"+root+r.mount, "access_pair", []any{nil, nil}, "access_token", nil, "profile", nil, "endpoint_url", nil)
	}
	m.BuildCache = &BuildCache{
		Mirror: Mirror{"alpscache", yamlpos.NewMap("fetch", connection(), "push", connection())}, Push: true,
	}
	key := document.Get("key")
	if key.IsNull() {
		return
	}
	m.BuildCache.Key = r.absolute(key, "build cache key")
	if info, err := os.Stat(m.BuildCache.Key); filepath.IsAbs(m.BuildCache.Key) && (err != nil || !info.Mode().IsRegular()) {
		r.Fail(key, "", "the build cache key '%s' does not exist", m.BuildCache.Key)
	}
}

// cacheV2 makes of a build cache file what the mirror file should say.
func (m *Mirrors) cacheV2(r *mirrorReader, document *yamlpos.Node) {
	root := r.expand(document.Get("root"))
	r.Warn(document, "deprecated-cache", fmt.Sprintf("write 'buildcache: {mount_specific: true, url: %s, private_key: …}'", root),
		"a build cache file is deprecated for recipes of versions 2 and 3")
	equivalent := &yamlpos.Node{Kind: yamlpos.Mapping, Pairs: []yamlpos.Pair{
		{Key: scalar("url"), Value: scalar(root)},
		{Key: scalar("mount_specific"), Value: scalar(true)},
	}}
	if key := document.Get("key"); key != nil {
		equivalent.Pairs = append(equivalent.Pairs, yamlpos.Pair{Key: scalar("private_key"), Value: key})
	}
	m.buildCache(r, equivalent)
}

func scalar(v any) *yamlpos.Node { return &yamlpos.Node{Value: v} }
