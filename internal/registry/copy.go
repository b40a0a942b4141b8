package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
)

// CopyOptions say how to copy. The zero value copies everything and sets no tag.
type CopyOptions struct {
	// Tag is set at the destination when all else is there; "" sets none.
	Tag string
	// Listed is what refers to the manifest at the source, if the caller has just
	// asked; nil asks.
	Listed []ocispec.Descriptor
	// Referrer chooses the referrers to copy, at every depth; nil takes all.
	Referrer func(ocispec.Descriptor) bool
	// Attach is attached to the copy; its subject is the manifest that is copied.
	// It is listed together with the referrers that are copied.
	Attach []Artifact
}

// CopyReport tells what a copy did.
type CopyReport struct {
	Manifests int   `json:"manifests"` // written, whether they were there before or not
	Mounted   int   `json:"mounted"`   // blobs made available without moving bytes
	Uploaded  int   `json:"uploaded"`  // blobs sent
	Bytes     int64 `json:"bytes"`     // of blobs sent
}

// Copy copies a manifest with everything it needs and everything that refers to
// it, recursively, to another repository. Manifests stay byte for byte what they
// are, so that digests stay too. Between repositories of one registry blobs are
// mounted where the registry can. The tag comes last, after the destination
// confirmed each manifest by its digest and each referrer by its subject, or, where
// it keeps no referrers, was seen to list them.
func Copy(ctx context.Context, src *Repository, d ocispec.Descriptor, dst *Repository, o CopyOptions) (CopyReport, error) {
	c := &copier{src: src, dst: dst, root: d.Digest, options: o, seen: map[digest.Digest]bool{}, blobs: map[digest.Digest]*sync.Mutex{}, contents: make(chan struct{})}
	c.tags = sync.OnceValues(func() (map[string]bool, error) { return src.tagSet(ctx) })
	if err := c.run(ctx, plain(d)); err != nil {
		return c.report, fmt.Errorf("copy %s from %s to %s: %w", d.Digest, src, dst, err)
	}
	return c.report, nil
}

type copier struct {
	src, dst *Repository
	root     digest.Digest
	options  CopyOptions
	tags     func() (map[string]bool, error) // of the source
	contents chan struct{}                   // closed when what the root needs was copied

	mu     sync.Mutex
	blobs  map[digest.Digest]*sync.Mutex // held by who copies the blob
	seen   map[digest.Digest]bool        // manifests that are done
	report CopyReport
}

// parallelManifests bounds the referrers that are copied at a time.
const parallelManifests = 4

// first tells whether nobody has begun to copy a manifest yet.
func (c *copier) first(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen[d]
	c.seen[d] = true
	return !seen
}

// count changes the report.
func (c *copier) count(change func(*CopyReport)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.report)
}

// maxCopied bounds the manifests that one copy follows.
const maxCopied = 10_000

func (c *copier) run(ctx context.Context, d ocispec.Descriptor) error {
	if c.options.Tag != "" {
		if err := validTag(c.options.Tag); err != nil {
			return err
		}
	}
	data, err := c.src.rawManifest(ctx, d)
	if err != nil {
		return err
	}
	switch {
	case c.src.String() == c.dst.String():
		err = c.attachHere(ctx)
	case c.dst.keepsNoReferrers():
		return c.copyRootLast(ctx, d, data)
	default:
		err = c.copyRootFirst(ctx, d, data)
	}
	if err != nil || c.options.Tag == "" {
		return err
	}
	if err := c.dst.setTag(ctx, d, data, c.options.Tag); err != nil {
		return fmt.Errorf("tag %s: %w", c.options.Tag, err)
	}
	return nil
}

// tagSet learns which fallback tags there are, in one request instead of one for
// each manifest.
func (p *Repository) tagSet(ctx context.Context) (map[string]bool, error) {
	tags, err := p.store.tags(ctx)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return nil, fmt.Errorf("list tags: %w", err)
	}
	set := map[string]bool{}
	for _, tag := range tags {
		set[tag] = true
	}
	return set, nil
}

// copyRootFirst copies the manifest that everything hangs on, finds out meanwhile
// what refers to it, and copies that.
func (c *copier) copyRootFirst(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	c.first(d.Digest)
	var found []ocispec.Descriptor
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := c.copyManifest(both, d, data, "")
		return err
	})
	group.Go(func() (err error) {
		found, err = c.listReferrers(both, d)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	close(c.contents)
	return c.copyListed(ctx, d, found)
}

// copyRootLast copies what the manifest needs and, at the same time, what refers to
// it. A registry that keeps no referrers does not mind that the manifest itself
// comes after them: under its tag at once.
func (c *copier) copyRootLast(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	c.first(d.Digest)
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error {
		blobs, err := c.copyChildren(both, d, data)
		if err == nil {
			err = c.copyBlobs(both, blobs)
		}
		if err == nil {
			close(c.contents)
		}
		return err
	})
	group.Go(func() error { return c.copyReferrers(both, d) })
	if err := group.Wait(); err != nil {
		return err
	}
	_, err := c.copyManifest(ctx, d, data, c.options.Tag)
	return err
}

// copyTree copies a manifest, then what refers to it.
func (c *copier) copyTree(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	if !c.first(d.Digest) {
		return nil
	}
	if _, err := c.copyManifest(ctx, d, data, ""); err != nil {
		return err
	}
	return c.copyReferrers(ctx, d)
}

// copyManifest copies one manifest and the blobs or manifests it lists, and sets its
// tag unless that is "".
func (c *copier) copyManifest(ctx context.Context, d ocispec.Descriptor, data []byte, tag string) (indexed bool, err error) {
	full := false
	c.count(func(r *CopyReport) { r.Manifests++; full = r.Manifests > maxCopied })
	if full {
		return false, fault.New(fault.Invalid, "more than %d manifests hang together", maxCopied)
	}
	blobs, err := c.copyChildren(ctx, d, data)
	if err != nil {
		return false, err
	}
	err = c.dst.whileBlobsVanish(ctx, func() error {
		if err := c.copyBlobs(ctx, blobs); err != nil {
			return err
		}
		indexed, err = c.dst.store.putManifest(ctx, plain(d), data, tag)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	c.dst.manifests.put(d.Digest, data)
	return indexed, nil
}

// copyChildren copies the manifests that an index lists, each once, and returns the
// blobs that are needed besides.
func (c *copier) copyChildren(ctx context.Context, d ocispec.Descriptor, data []byte) (blobs []ocispec.Descriptor, err error) {
	blobs, children, err := contents(data)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, child := range children {
		raw, err := c.src.rawManifest(ctx, child)
		if err == nil {
			err = c.copyTree(ctx, plain(child), raw)
		}
		if err != nil {
			return nil, err
		}
	}
	return blobs, nil
}

// contents lists what a manifest or index is made of.
func contents(data []byte) (blobs, manifests []ocispec.Descriptor, err error) {
	var m struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, nil, fault.New(fault.Invalid, "not JSON: %w", err)
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, d := range append(m.Layers, m.Manifests...) {
		if err := validDescriptor(d); err != nil {
			return nil, nil, err
		}
	}
	return m.Layers, m.Manifests, nil
}

// copyReferrers copies what refers to d. Where the destination keeps no list of
// referrers, all of them are recorded in one go.
func (c *copier) copyReferrers(ctx context.Context, d ocispec.Descriptor) error {
	found, err := c.listReferrers(ctx, d)
	if err != nil {
		return err
	}
	return c.copyListed(ctx, d, found)
}

func (c *copier) listReferrers(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if d.Digest == c.root && c.options.Listed != nil {
		return c.options.Listed, nil
	}
	tags, err := c.tags()
	if err != nil {
		return nil, err
	}
	found, err := c.src.listReferrers(ctx, d, tags)
	if err != nil {
		return nil, fmt.Errorf("list referrers of %s: %w", d.Digest, err)
	}
	return found, nil
}

// copyListed copies what was found to refer to d.
func (c *copier) copyListed(ctx context.Context, d ocispec.Descriptor, found []ocispec.Descriptor) error {
	var attach []Artifact
	if d.Digest == c.root {
		attach = c.options.Attach
	}
	unlisted := make([]*ocispec.Descriptor, len(found)+len(attach))
	copied := make([]bool, len(found))
	err := c.parallel(ctx, len(unlisted), func(ctx context.Context, i int) (err error) {
		if i < len(found) {
			copied[i], unlisted[i], err = c.copyReferrer(ctx, d, found[i])
		} else {
			unlisted[i], err = c.attach(ctx, attach[i-len(found)])
		}
		return err
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.record(ctx, d, unlisted) })
	group.Go(func() error {
		return c.parallel(ctx, len(found), func(ctx context.Context, i int) error {
			if !copied[i] {
				return nil
			}
			return c.copyReferrers(ctx, found[i])
		})
	})
	return group.Wait()
}

// record lists at the destination what it does not list by itself.
func (c *copier) record(ctx context.Context, subject ocispec.Descriptor, unlisted []*ocispec.Descriptor) error {
	var all []ocispec.Descriptor
	for _, u := range unlisted {
		if u != nil {
			all = append(all, *u)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return c.dst.recordReferrers(ctx, subject, all)
}

// parallel does n things, some of them at a time.
func (c *copier) parallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelManifests)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// copyReferrer copies what refers to subject, unless it is gone or was copied
// before, and describes it if the destination does not list it by itself.
func (c *copier) copyReferrer(ctx context.Context, subject, r ocispec.Descriptor) (copied bool, unlisted *ocispec.Descriptor, err error) {
	if c.options.Referrer != nil && !c.options.Referrer(r) {
		return false, nil, nil
	}
	data, err := c.src.rawManifest(ctx, r)
	if fault.KindOf(err) == fault.NotFound {
		return false, nil, nil // listed, but deleted since
	}
	if err != nil {
		return false, nil, err
	}
	if s := subjectOf(data); s == nil || s.Digest != subject.Digest || !c.first(r.Digest) {
		return false, nil, nil // the list is wrong: it refers to something else
	}
	indexed, err := c.copyManifest(ctx, r, data, "")
	if err != nil || indexed {
		return err == nil, nil, err
	}
	described := describeManifest(r, data)
	return true, &described, nil
}

// attach puts an artifact at the destination and describes it if the destination
// does not list it by itself.
func (c *copier) attach(ctx context.Context, a Artifact) (unlisted *ocispec.Descriptor, err error) {
	data, d, err := a.Manifest()
	if err != nil {
		return nil, err
	}
	if err := c.dst.pushBlobs(ctx, a.Layers); err != nil {
		return nil, fmt.Errorf("attach %s: %w", a.Type, err)
	}
	select { // the root has the configuration that artifacts share, mostly
	case <-c.contents:
	case <-ctx.Done():
		return nil, ended(ctx)
	}
	indexed := false
	err = c.dst.whileBlobsVanish(ctx, func() (err error) {
		indexed, err = c.dst.putArtifact(ctx, a, d, data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", a.Type, err)
	}
	if indexed {
		return nil, nil
	}
	return &d, nil
}

// attachHere attaches where nothing has to be copied.
func (c *copier) attachHere(ctx context.Context) error {
	for _, a := range c.options.Attach {
		if _, err := c.dst.Push(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// alone waits until nobody else copies a blob: registries do not find one for the
// moment in which it is sent again.
func (c *copier) alone(d digest.Digest) (done func()) {
	c.mu.Lock()
	m := c.blobs[d]
	if m == nil {
		m = new(sync.Mutex)
		c.blobs[d] = m
	}
	c.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// copyBlobs copies blobs, several at a time, and each once.
func (c *copier) copyBlobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	return c.parallel(ctx, len(blobs), func(ctx context.Context, i int) error {
		b := plain(blobs[i])
		defer c.alone(b.Digest)()
		if err := c.copyBlob(ctx, b); err != nil {
			return fmt.Errorf("blob %s: %w", b.Digest, err)
		}
		return nil
	})
}

func (c *copier) copyBlob(ctx context.Context, d ocispec.Descriptor) error {
	if c.dst.blobs.has(d.Digest) {
		return nil
	}
	mounted, err := c.dst.store.mount(ctx, d, c.src.store)
	if err != nil {
		return err
	}
	if mounted {
		c.count(func(r *CopyReport) { r.Mounted++ })
		c.dst.blobs.add(d.Digest)
	} else {
		open := func() (io.ReadCloser, error) { return c.src.openBlob(ctx, d) }
		sent, err := c.dst.pushBlob(ctx, Layer{Descriptor: d, Open: open})
		if err != nil {
			return err
		}
		if sent {
			c.count(func(r *CopyReport) { r.Uploaded++; r.Bytes += d.Size })
		}
	}
	return nil
}
