package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/proc"
)

// publisher puts packages into a build cache that is a directory, in the layout
// of Spack 0.22 and 0.23: first the archive, then the description, which is
// signed and names the archive's checksum, so a description is never there without
// its package. Packages that the cache already has are left alone.
type publisher struct {
	*job
	cache   buildCache
	home    string   // GnuPG's directory with the private key, "" without one
	public  []string // file with its public key
	exclude []string // packages that are not published
	noGit   bool     // nor versions that are commits
	sending context.Context
	stop    context.CancelFunc // ends it

	wake chan struct{}
	done chan struct{}
	seen map[string]bool
	// published are the names of the descriptions that are new in the cache.
	published []string
	sent      [][]byte // descriptions of the packages that are new in a registry
}

// newPublisher begins to publish. Callers end it with close.
func newPublisher(ctx context.Context, j *job, c buildCache) (*publisher, error) {
	p := &publisher{job: j, cache: c, wake: make(chan struct{}, 1), done: make(chan struct{}), seen: map[string]bool{}}
	for _, env := range j.tree.Environments {
		p.exclude = append(p.exclude, env.CacheExclude...)
		p.noGit = p.noGit || env.CacheExcludeGit
	}
	if c.signs() {
		if err := p.prepareKey(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare the key of the build cache: %w", err), p.forgetKey())
		}
	}
	if err := os.MkdirAll(j.cell.path(stagingMirror), 0o755); err != nil {
		return nil, errors.Join(err, p.forgetKey())
	}
	p.sending, p.stop = lasting(j.ctx, sendGrace)
	go func() {
		defer close(p.done)
		for range p.wake {
			p.publishAll(false)
		}
	}()
	return p, nil
}

// sendGrace is how long publishing continues after the build was interrupted: finished
// packages are worth saving, but nobody should have to wait for all of them.
const sendGrace = 20 * time.Second

// lasting returns a context that ends so long after ctx.
func lasting(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, end := context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() {
		select {
		case <-longer.Done():
		case <-time.After(grace):
			end()
		}
	})
	return longer, func() { forget(); end() }
}

// prepareKey makes a keyring beside the build directory, where no program of the
// build sees it.
func (p *publisher) prepareKey(ctx context.Context) error {
	p.home = filepath.Join(filepath.Dir(p.cell.host), "signing")
	if err := os.MkdirAll(p.home, 0o700); err != nil {
		return err
	}
	files := slices.Clone(p.cache.private)
	for i, key := range p.cache.material {
		file := filepath.Join(p.home, fmt.Sprint("key-", i))
		if err := os.WriteFile(file, key, 0o600); err != nil {
			return err
		}
		files = append(files, file)
	}
	if err := gpg(ctx, p.home, append([]string{"--import"}, files...)...); err != nil {
		return err
	}
	public := p.cell.path(engineScope, "signing.pub")
	if err := os.MkdirAll(filepath.Dir(public), 0o755); err != nil {
		return err
	}
	if err := gpg(ctx, p.home, "--armor", "--output", public, "--export"); err != nil {
		return err
	}
	data, err := os.ReadFile(public)
	if err != nil {
		return err
	}
	p.public = []string{public}
	sum := sha256.Sum256(data)
	return atomicfile.WriteBytes(p.keyFile(hex.EncodeToString(sum[:20])), 0o644, data)
}

// keyFile returns where a cache has a public key, and makes its directory.
func (p *publisher) keyFile(name string) string {
	dir := filepath.Join(p.cache.dir, "build_cache", "_pgp")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.Events.Warn("cache", "%v", err)
	}
	return filepath.Join(dir, strings.ToUpper(name)+".pub")
}

// notify tells that a package is finished. A nil publisher has nothing to do.
func (p *publisher) notify() {
	if p == nil {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// close publishes what is left and forgets the key.
func (p *publisher) close() error {
	if p == nil {
		return nil
	}
	defer p.stop()
	close(p.wake)
	<-p.done
	p.publishAll(true)
	index := p.sendIndex
	if p.cache.oci == nil {
		index = func() error { return updateIndex(p.sending, filepath.Join(p.cache.dir, "build_cache"), p.published) }
	}
	if err := index(); err != nil {
		p.Events.Warn("cache", "the index of the build cache is not up to date: %v", err)
	}
	return p.forgetKey()
}

func (p *publisher) forgetKey() error {
	if p.home == "" {
		return nil
	}
	// GnuPG's agent outlives the commands that started it.
	stop := proc.Cmd{Path: "gpgconf", Args: []string{"--kill", "all"}, Env: []string{"PATH=" + os.Getenv("PATH"), "GNUPGHOME=" + p.home}}
	if _, err := stop.Output(context.WithoutCancel(p.ctx)); err != nil {
		p.Events.Warn("cache", "stop the agent of the signing key: %v", err)
	}
	return os.RemoveAll(p.home)
}

// publishAll publishes what Spack has put into the staging directory since the
// last time. A package that cannot be published is missing in the cache, which
// is no reason to fail.
func (p *publisher) publishAll(last bool) {
	root, err := openForeign(p.cell.path(stagingMirror))
	if err != nil {
		p.Events.Warn("cache", "%v", err)
		return
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), "build_cache")
	if err != nil {
		return // nothing is there yet
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".spec.json")
		if !ok || p.seen[name] {
			continue
		}
		err := p.publish(root, name)
		if errors.Is(err, errUnfinished) && !last {
			continue // a process of Spack is still writing it
		}
		p.seen[name] = true
		if err != nil {
			p.Events.Warn("cache", "%s is not in the build cache: %v", name, err)
		}
	}
}

// description is the part of a package's description in a build cache that
// matters here.
type description struct {
	Spec struct {
		Nodes []struct {
			Name    string `json:"name"`
			Version any    `json:"version"`
			Hash    string `json:"hash"`
		} `json:"nodes"`
	} `json:"spec"`
	Checksum struct {
		Algorithm string `json:"hash_algorithm"`
		Hash      string `json:"hash"`
	} `json:"binary_cache_checksum"`
}

// maxDescription bounds the size of a description.
const maxDescription = 16 << 20

var errUnfinished = errors.New("its description is not whole")

func (p *publisher) publish(root foreign, name string) error {
	f, err := root.open("build_cache/" + name + ".spec.json")
	if err != nil {
		return err
	}
	text, err := readTail(f, maxDescription)
	f.Close()
	if err != nil {
		return err
	}
	var d description
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("%w: %w", errUnfinished, err)
	}
	if len(d.Spec.Nodes) == 0 || !isHash(d.Spec.Nodes[0].Hash) || !strings.HasSuffix(name, "-"+d.Spec.Nodes[0].Hash) || d.Checksum.Algorithm != "sha256" {
		return errors.New("its description is not one of a package")
	}
	if p.isExcluded(d.Spec.Nodes[0].Name, fmt.Sprint(d.Spec.Nodes[0].Version)) {
		return nil
	}
	if p.cache.oci != nil {
		return p.send(root, name, text, d)
	}
	suffix := ".spec.json"
	if p.home != "" {
		suffix += ".sig"
	}
	target := filepath.Join(p.cache.dir, "build_cache", name+suffix)
	if _, err := os.Lstat(target); err == nil {
		return nil
	}
	if err := p.copyArchive(root, name+".spack", d.Checksum.Hash); err != nil {
		return err
	}
	if p.home != "" {
		if text, err = p.sign(text); err != nil {
			return err
		}
	}
	if err := atomicfile.WriteBytes(target, 0o644, text); err != nil {
		return err
	}
	p.published = append(p.published, name+suffix)
	p.report.Cache.Pushed++
	return nil
}

func (p *publisher) isExcluded(name, version string) bool {
	for _, e := range p.exclude {
		if e == name {
			return true
		}
	}
	return p.noGit && strings.HasPrefix(version, "git.")
}

// copyArchive copies the archive of a package, if it is what its description says.
func (p *publisher) copyArchive(root foreign, name, checksum string) error {
	found, err := findArchive(root, name)
	if err != nil {
		return err
	}
	in, err := root.open(found)
	if err != nil {
		return err
	}
	defer in.Close()
	target := filepath.Join(p.cache.dir, found)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(target, 0o644, func(w io.Writer) error {
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, sum), in); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != checksum {
			return fmt.Errorf("its archive has the checksum %s, not %s", got, checksum)
		}
		return nil
	})
}

// findArchive returns where in the staging directory an archive is.
func findArchive(root foreign, name string) (found string, err error) {
	err = fs.WalkDir(root.FS(), "build_cache", func(file string, d fs.DirEntry, err error) error {
		if err == nil && path.Base(file) == name && d.Type().IsRegular() {
			found = file
			return fs.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("there is no %s", name)
	}
	return found, err
}

// sign returns a signed description.
func (p *publisher) sign(text []byte) ([]byte, error) {
	plain, signed := filepath.Join(p.home, "description"), filepath.Join(p.home, "description.sig")
	if err := os.WriteFile(plain, text, 0o600); err != nil {
		return nil, err
	}
	if err := gpg(context.WithoutCancel(p.ctx), p.home, "--output", signed, "--clearsign", plain); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return os.ReadFile(signed)
}
