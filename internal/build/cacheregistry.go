package build

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/yamlpos"
)

// A build cache in a registry has, as Spack 0.21 to 0.23 write it, one image per
// package, under a tag of its name, version and hash: the last layer is the
// package's archive, the configuration has its description. Spack itself never
// talks to the registry: we fetch what a build needs into a directory, and send
// what is in the staging directory. So no credential is in the sandbox.

// fetchedMirror is the directory of the build with packages from registries.
const fetchedMirror = "fetched"

// sendTimeout bounds how long the sending of one package may take.
const sendTimeout = 10 * time.Minute

// openOCI opens the repository of a build cache at an oci:// address.
func (j *job) openOCI(c *site.BuildCache, address string) (*registry.Repository, error) {
	host, name, ok := strings.Cut(strings.TrimPrefix(address, "oci://"), "/")
	if !ok {
		return nil, fault.New(fault.Invalid, "the build cache %s names no repository", address)
	}
	r, err := registry.Open(host, registry.Options{
		CAFile:      j.CAFile,
		Credentials: registry.Credentials{DockerConfig: c.Credentials, HostOnly: c.Credentials != ""}, Events: j.Events,
	})
	if err != nil {
		return nil, fmt.Errorf("the build cache %s: %w", address, err)
	}
	return r.Repository(strings.Trim(name, "/"))
}

// ociURL returns the oci:// address of a mirror, "" if it has another one.
func ociURL(entry *yamlpos.Map) string {
	value, _ := entry.Get("fetch")
	if connection, ok := value.(*yamlpos.Map); ok {
		value, _ = connection.Get("url")
	}
	if text, _ := value.(string); strings.HasPrefix(text, "oci://") {
		return text
	}
	return ""
}

var notInTags = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

// ociTag is the tag of a package.
func ociTag(name, version, hash string) string {
	tag := notInTags.ReplaceAllString(name+"-"+version+"-"+hash+".spack", "_")
	if len(tag) > 128 {
		tag = tag[:64] + tag[len(tag)-64:]
	}
	return tag
}

// parallelFetches is how many packages are fetched at a time.
const parallelFetches = 8

// fetchEnvironment fetches the packages of an environment that is concretized.
func (b *spackBuild) fetchEnvironment(ctx context.Context, env environment) {
	if !slices.ContainsFunc(b.caches, func(c buildCache) bool { return c.oci != nil }) {
		return
	}
	if lock, err := b.readLock(env); err == nil {
		b.fetchPackages(ctx, lock)
	}
}

// fetchPackages fetches those packages of an environment that a registry has.
// The others are built.
func (b *spackBuild) fetchPackages(ctx context.Context, lock spack.Lock) {
	if b.Offline {
		return
	}
	for _, c := range b.caches {
		if c.oci == nil {
			continue
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(parallelFetches)
		for _, s := range lock.Specs {
			if s.External || b.fetched.has(s.Hash) {
				continue
			}
			group.Go(func() error {
				found, err := b.fetchPackage(ctx, c.oci, s)
				if found {
					b.fetched.add(s.Hash)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			b.Events.Warn("cache", "%s: %v", c.Name, err)
		}
	}
}

// fetchPackage fetches one package, if the registry has it.
func (b *spackBuild) fetchPackage(ctx context.Context, repo *registry.Repository, s spack.Spec) (bool, error) {
	d, err := repo.Resolve(ctx, ociTag(s.Name, s.Version, s.Hash))
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m, _, err := repo.Manifest(ctx, d)
	if err != nil || len(m.Layers) == 0 || m.Config.Size > maxDescription {
		return false, err
	}
	text, err := fetchAll(ctx, repo, m.Config)
	if err != nil {
		return false, err
	}
	dir, file, err := cachePath(text, s.Hash)
	if err != nil {
		return false, err
	}
	archive := m.Layers[len(m.Layers)-1]
	target := b.cell.path(fetchedMirror, "build_cache", dir, file+".spack")
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return false, err
	}
	in, err := repo.Fetch(ctx, archive)
	if err != nil {
		return false, err
	}
	defer in.Close()
	err = atomicfile.Write(target, 0o644, func(w io.Writer) error { _, err := io.Copy(w, in); return err })
	if err == nil {
		err = atomicfile.WriteBytes(b.cell.path(fetchedMirror, "build_cache", file+".spec.json"), 0o644, text)
	}
	return err == nil, err
}

func fetchAll(ctx context.Context, repo *registry.Repository, d ocispec.Descriptor) ([]byte, error) {
	in, err := repo.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}

// inCachePath is what names, versions, systems and compilers are made of.
var inCachePath = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.=+-]*$`)

// cachePath returns where a build cache that is a directory has a package: the
// directory of its archive, and the name of both its files.
func cachePath(text []byte, hash string) (dir, file string, err error) {
	var d struct {
		Spec struct {
			Nodes []struct {
				Name    string `json:"name"`
				Version string `json:"version"`
				Hash    string `json:"hash"`
				Arch    struct {
					Platform string          `json:"platform"`
					OS       string          `json:"platform_os"`
					Target   json.RawMessage `json:"target"`
				} `json:"arch"`
				Compiler struct {
					Name    string `json:"name"`
					Version string `json:"version"`
				} `json:"compiler"`
			} `json:"nodes"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(text, &d); err != nil || len(d.Spec.Nodes) == 0 || d.Spec.Nodes[0].Hash != hash || !isHash(hash) {
		return "", "", fmt.Errorf("what is under the tag of %s is not that package", hash)
	}
	n := d.Spec.Nodes[0]
	target := strings.Trim(string(n.Arch.Target), `"`)
	var named struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(n.Arch.Target, &named) == nil && named.Name != "" {
		target = named.Name
	}
	for _, part := range []string{n.Name, n.Version, n.Arch.Platform, n.Arch.OS, target, n.Compiler.Name, n.Compiler.Version} {
		if !inCachePath.MatchString(part) {
			return "", "", fmt.Errorf("%q in the description of %s is no name", part, hash)
		}
	}
	arch := n.Arch.Platform + "-" + n.Arch.OS + "-" + target
	compiler := n.Compiler.Name + "-" + n.Compiler.Version
	file = strings.Join([]string{arch, n.Compiler.Name, n.Compiler.Version, n.Name, n.Version, hash}, "-")
	return path.Join(arch, compiler, n.Name+"-"+n.Version), file, nil
}

// hashSet is a set of hashes that several may use at once.
type hashSet struct {
	mu  sync.Mutex
	set map[string]bool
}

func (s *hashSet) has(hash string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[hash]
}

func (s *hashSet) add(hash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[string]bool{}
	}
	s.set[hash] = true
}

// send puts a package of the staging directory into a registry.
func (p *publisher) send(root foreign, name string, text []byte, d description) error {
	ctx, stop := context.WithTimeout(p.sending, sendTimeout)
	defer stop()
	node := d.Spec.Nodes[0]
	tag := ociTag(node.Name, fmt.Sprint(node.Version), node.Hash)
	if _, err := p.cache.oci.Resolve(ctx, tag); err == nil {
		return nil
	}
	found, err := findArchive(root, name+".spack")
	if err != nil {
		return err
	}
	layer, content, err := archiveLayer(root, found, d.Checksum.Hash)
	if err != nil {
		return err
	}
	config, err := ociConfig(text, content)
	if err != nil {
		return err
	}
	desc, err := p.cache.oci.PushImage(ctx, config, []registry.Layer{layer}, map[string]string{ocispec.AnnotationDescription: node.Name + "@" + fmt.Sprint(node.Version)})
	if err == nil {
		err = p.cache.oci.Tag(ctx, desc, tag)
	}
	if err != nil {
		return err
	}
	p.sent = append(p.sent, config)
	p.report.Cache.Pushed++
	return nil
}

// archiveLayer describes an archive, if it has the digest that it should have, and
// returns the digest of what is compressed in it.
func archiveLayer(root foreign, name, checksum string) (registry.Layer, digest.Digest, error) {
	in, err := root.open(name)
	if err != nil {
		return registry.Layer{}, "", err
	}
	defer in.Close()
	whole, content := sha256.New(), digest.SHA256.Digester()
	counted := &countingWriter{}
	plain, err := gzip.NewReader(io.TeeReader(in, io.MultiWriter(whole, counted)))
	if err == nil {
		_, err = io.Copy(content.Hash(), plain)
	}
	if err == nil {
		_, err = io.Copy(io.MultiWriter(whole, counted), in)
	}
	if err != nil {
		return registry.Layer{}, "", err
	}
	if got := hex.EncodeToString(whole.Sum(nil)); got != checksum {
		return registry.Layer{}, "", fmt.Errorf("its archive has the checksum %s, not %s", got, checksum)
	}
	return registry.Layer{
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.NewDigestFromEncoded(digest.SHA256, checksum), Size: counted.n},
		Open:       func() (io.ReadCloser, error) { return root.open(name) },
	}, content.Digest(), nil
}

type countingWriter struct{ n int64 }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	return len(p), nil
}

// ociConfig makes the configuration of an image of a description.
func ociConfig(text []byte, content digest.Digest) ([]byte, error) {
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	maps.Copy(config, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{content.String()}},
		"config": map[string]any{"Env": []string{"PATH=/bin:/usr/bin"}},
	})
	return json.Marshal(config)
}

// Names of the index in a registry.
const ociIndexTag = "index.spack"

// sendIndex adds what was sent to the index in the registry. Two builds at the same
// time may lose each other's entries; the packages themselves can still be found.
func (p *publisher) sendIndex() error {
	if len(p.sent) == 0 {
		return nil
	}
	ctx, stop := context.WithTimeout(p.sending, sendTimeout)
	defer stop()
	index, err := p.fetchIndex(ctx)
	if err != nil {
		return err
	}
	for _, text := range p.sent {
		index.add(text)
	}
	index.count()
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	layer := registry.BytesLayer(indexFile, ocispec.MediaTypeImageLayerGzip, text) // Spack says so too: it is no archive
	desc, err := p.cache.oci.PushImage(ctx, []byte("{}"), []registry.Layer{layer}, nil)
	if err != nil {
		return err
	}
	return p.cache.oci.Tag(ctx, desc, ociIndexTag)
}

// fetchIndex returns the index of the registry. Where there is none it is made of
// all packages.
func (p *publisher) fetchIndex(ctx context.Context) (cacheIndex, error) {
	d, err := p.cache.oci.Resolve(ctx, ociIndexTag)
	if err == nil {
		if m, _, err := p.cache.oci.Manifest(ctx, d); err == nil && len(m.Layers) > 0 && m.Layers[0].Size <= maxIndex {
			if text, err := fetchAll(ctx, p.cache.oci, m.Layers[0]); err == nil {
				if index, err := parseIndex(text); err == nil {
					return index, nil
				}
			}
		}
	} else if fault.KindOf(err) != fault.NotFound {
		return cacheIndex{}, err
	}
	index := newIndex()
	tags, err := p.cache.oci.Tags(ctx)
	if err != nil {
		return index, err
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool { return !strings.HasSuffix(tag, ".spack") || tag == ociIndexTag })
	for _, tag := range tags {
		if text, err := p.describedBy(ctx, tag); err == nil {
			index.add(text)
		}
	}
	return index, nil
}

func (p *publisher) describedBy(ctx context.Context, tag string) ([]byte, error) {
	d, err := p.cache.oci.Resolve(ctx, tag)
	if err != nil {
		return nil, err
	}
	m, _, err := p.cache.oci.Manifest(ctx, d)
	if err == nil && m.Config.Size > maxDescription {
		err = errors.New("its description is too large")
	}
	if err != nil {
		return nil, err
	}
	return fetchAll(ctx, p.cache.oci, m.Config)
}
