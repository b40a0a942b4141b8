package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/yamlpos"
)

// buildCache is a build cache as this build may use it.
type buildCache struct {
	site.Mirror
	dir    string               // of a cache that is a directory, "" for any other
	oci    *registry.Repository // of a cache in a registry, nil for any other
	signed bool
	write  bool
	keys   []string // files with public keys
	// private are the files with the key to sign with, material is what was read of
	// such. No program of the build sees them.
	private  []string
	material [][]byte
}

// signs tells whether there is a key to sign with.
func (c buildCache) signs() bool { return len(c.private)+len(c.material) > 0 }

// stagingMirror is the name of the mirror into which Spack puts every package as
// it finishes. It is a directory of the build; what comes there is signed and
// published by us, since keys and shared directories are out of Spack's reach:
// it runs the code of packages.
const stagingMirror = "staging"

// buildCaches returns the build caches to use. A build of a protected ref reads
// and writes the protected one; that of a change reads it too, but writes only
// its own.
func (j *job) buildCaches() ([]buildCache, error) {
	if j.Restricted || j.NoBuildCache {
		return nil, nil
	}
	var caches []buildCache
	for _, c := range []struct {
		mirrors *site.Mirrors
		read    bool
		write   bool
	}{{j.Stack.Mirrors, true, j.Protected}, {j.ChangeCache, !j.Protected, !j.Protected}} {
		if c.mirrors == nil || c.mirrors.BuildCache == nil || !c.read {
			continue
		}
		cache, err := j.openCache(c.mirrors, c.write)
		if err != nil {
			return nil, err
		}
		caches = append(caches, cache)
	}
	if j.Protected || j.Stack.Mirrors == nil {
		return caches, nil
	}
	if why := NotIsolated(j.Stack.Mirrors, j.ChangeCache); why != "" {
		j.Events.Warn("cache", "the protected build cache is not isolated: %s", why)
	}
	if len(caches) == 2 && place(caches[0].Entry) != "" && place(caches[0].Entry) == place(caches[1].Entry) {
		return nil, fault.New(fault.Invalid, "a change may not have the protected build cache %s as its own", place(caches[0].Entry))
	}
	return caches, nil
}

// NotIsolated says why a job of a change that runs as this user could put packages
// into the protected build cache, "" if it could not. change may be nil.
func NotIsolated(protected, change *site.Mirrors) string {
	if protected == nil || protected.BuildCache == nil {
		return ""
	}
	dir, at := fileURL(protected.BuildCache.Entry), place(protected.BuildCache.Entry)
	own := ""
	if change != nil && change.BuildCache != nil {
		own = place(change.BuildCache.Entry)
	}
	switch {
	case at != "" && at == own:
		return "it is that of changes, " + at
	case dir == "":
		return "" // the registry decides
	case writable(dir):
		return "this user can write to " + dir
	}
	key := protected.BuildCache.Key
	if key != "" && unix.Access(key, unix.R_OK) == nil {
		return "this user can read its key " + key
	}
	return ""
}

// place is the directory or the address of the registry that a cache is in, "" if
// it is in another place.
func place(entry *yamlpos.Map) string {
	if dir := fileURL(entry); dir != "" {
		return dir
	}
	return ociURL(entry)
}

// writable tells whether a directory can be written to, or made.
func writable(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			return unix.Access(dir, unix.W_OK) == nil
		}
	}
}

func (j *job) openCache(m *site.Mirrors, write bool) (buildCache, error) {
	c := buildCache{Mirror: m.BuildCache.Mirror, write: write && m.BuildCache.Push}
	c.dir = fileURL(c.Entry)
	if c.dir != "" {
		if err := os.MkdirAll(c.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) && c.write {
			return c, fault.WithHint(err, "the build cache has to be a directory that can be written to")
		}
		c.keys = append(c.keys, globIn(c.dir, "build_cache/_pgp/*.pub")...)
	}
	if m.BuildCache.Key != "" {
		c.private = append(c.private, m.BuildCache.Key)
	}
	if err := j.readKeys(&c, m.Keys); err != nil {
		return c, err
	}
	c.signed = len(c.keys) > 0 || c.signs()
	if value, ok := c.Entry.Get("signed"); ok {
		c.signed = value == true
	}
	if address := ociURL(c.Entry); address != "" {
		var err error
		if c.oci, err = j.openOCI(m.BuildCache, address); err != nil {
			return c, err
		}
		c.write = c.write && !j.Offline
		return c, nil // nothing is signed there: who may write to it is up to the registry
	}
	if c.write && c.dir == "" {
		j.Events.Warn("cache", "%s is read only: packages are pushed to directories and registries only", c.Name)
		c.write = false
	}
	return c, nil
}

// readKeys takes over the keys of a mirror file.
func (j *job) readKeys(c *buildCache, keys []site.KeyFile) error {
	for _, k := range keys {
		if k.Private {
			c.material = append(c.material, k.Data)
			continue
		}
		sum := sha256.Sum256(k.Data)
		name := path.Join(engineScope, "trusted-"+hex.EncodeToString(sum[:8]))
		if err := j.cell.files.write(name, k.Data, 0o644); err != nil {
			return fmt.Errorf("write the public key of %s: %w", c.Name, err)
		}
		c.keys = append(c.keys, j.cell.path(name))
	}
	return nil
}

// fileURL returns the directory that a mirror is, "" if it is none.
func fileURL(entry *yamlpos.Map) string {
	for _, key := range []string{"fetch", "url"} {
		value, _ := entry.Get(key)
		if connection, ok := value.(*yamlpos.Map); ok {
			value, _ = connection.Get("url")
		}
		text, _ := value.(string)
		if u, err := url.Parse(text); err == nil && (u.Scheme == "file" || u.Scheme == "") && filepath.IsAbs(u.Path) {
			return filepath.Clean(u.Path)
		}
	}
	return ""
}

// useCaches makes the caches known to Spack: read-only, but for the
// directory into which it puts what it has built.
func (b *spackBuild) useCaches(ctx context.Context) (err error) {
	caches, err := b.buildCaches()
	if err != nil || len(caches) == 0 && b.SourceCache == "" && b.Stack.Mirrors == nil {
		return err
	}
	if len(caches) > 0 {
		b.report.Cache = &Cache{}
	}
	b.caches = caches
	mirrors := &yamlpos.Map{}
	b.useSources(mirrors)
	var keys []string
	for _, c := range caches {
		entry := c.Entry.Clone()
		entry.Set("signed", c.signed)
		entry.Set("binary", true)
		entry.Delete("push")
		if c.oci != nil {
			fetched := "file://" + b.cell.inside(fetchedMirror)
			mirrors.Set(fetchedMirror, yamlpos.NewMap("url", fetched, "binary", true, "source", false, "signed", false))
			if err := os.MkdirAll(b.cell.path(fetchedMirror, "build_cache"), 0o755); err != nil {
				return err
			}
		} else {
			mirrors.Set(c.Name+"-"+map[bool]string{true: "own", false: "shared"}[c.write], entry)
		}
		if c.dir != "" {
			b.cell.show(c.dir)
		}
		keys = append(keys, c.keys...)
		if c.write {
			if b.publisher, err = newPublisher(ctx, b.job, c); err != nil {
				return err
			}
			mirrors.Set(stagingMirror, yamlpos.NewMap("url", "file://"+b.cell.inside(stagingMirror), "binary", true, "source", false, "signed", false, "autopush", true))
			keys = append(keys, b.publisher.public...)
		}
	}
	if err := b.trust(ctx, keys); err != nil {
		return err
	}
	return b.writeYAML("config/mirrors.yaml", yamlpos.NewMap("mirrors", mirrors))
}

// trust makes a keyring of public keys for Spack.
func (b *spackBuild) trust(ctx context.Context, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	home := b.cell.path("gnupg")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	if err := gpg(ctx, home, append([]string{"--import"}, keys...)...); err != nil {
		return fault.WithHint(err, "install gnupg, or set 'signed: false' for the build cache")
	}
	b.cell.env = append(b.cell.env, "SPACK_GNUPGHOME="+b.cell.inside("gnupg"))
	return nil
}

// gpg runs GnuPG on this machine with a keyring.
func gpg(ctx context.Context, home string, args ...string) error {
	args = append([]string{"--batch", "--yes", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)
	_, err := proc.Cmd{Path: "gpg", Args: args, Env: []string{"PATH=" + os.Getenv("PATH"), "GNUPGHOME=" + home, "LC_ALL=C.UTF-8"}}.Output(ctx)
	return err
}

// isHash tells whether a text is the hash of a concrete spec.
func isHash(s string) bool {
	return len(s) == 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
