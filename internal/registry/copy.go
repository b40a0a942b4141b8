package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// CopyOptions say how to copy. The zero value copies everything and sets no tag.
type CopyOptions struct {
	// Tag is set at the destination when all else is there; "" sets none.
	Tag string
	// Referrer chooses the referrers to copy, at every depth; nil takes all.
	Referrer func(ocispec.Descriptor) bool
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
	c := &copier{src: src, dst: dst, options: o, seen: map[digest.Digest]bool{}}
	if err := c.run(ctx, plain(d)); err != nil {
		return c.report, fmt.Errorf("copy %s from %s to %s: %w", d.Digest, src, dst, err)
	}
	return c.report, nil
}

type copier struct {
	src, dst *Repository
	options  CopyOptions
	seen     map[digest.Digest]bool // manifests that are done
	tags     map[string]bool        // of the source
	report   CopyReport
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
	if c.src.String() != c.dst.String() {
		if err := c.listTags(ctx); err != nil {
			return err
		}
		if err := c.copyTree(ctx, d, data); err != nil {
			return err
		}
	}
	if c.options.Tag == "" {
		return nil
	}
	if err := c.dst.setTag(ctx, d, data, c.options.Tag); err != nil {
		return fmt.Errorf("tag %s: %w", c.options.Tag, err)
	}
	return nil
}

// listTags learns which fallback tags the source has, in one request instead of
// one for each manifest.
func (c *copier) listTags(ctx context.Context) error {
	tags, err := c.src.store.tags(ctx)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return fmt.Errorf("list tags: %w", err)
	}
	c.tags = map[string]bool{}
	for _, tag := range tags {
		c.tags[tag] = true
	}
	return nil
}

// copyTree copies a manifest, then what refers to it.
func (c *copier) copyTree(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	if c.seen[d.Digest] {
		return nil
	}
	c.seen[d.Digest] = true
	if _, err := c.copyManifest(ctx, d, data); err != nil {
		return err
	}
	return c.copyReferrers(ctx, d)
}

// copyManifest copies one manifest and the blobs or manifests it lists.
func (c *copier) copyManifest(ctx context.Context, d ocispec.Descriptor, data []byte) (indexed bool, err error) {
	if c.report.Manifests >= maxCopied {
		return false, fault.New(fault.Invalid, "more than %d manifests hang together", maxCopied)
	}
	blobs, children, err := contents(data)
	if err != nil {
		return false, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, child := range children {
		raw, err := c.src.rawManifest(ctx, child)
		if err == nil {
			err = c.copyTree(ctx, plain(child), raw)
		}
		if err != nil {
			return false, err
		}
	}
	err = c.dst.whileBlobsVanish(ctx, func() error {
		for _, b := range blobs {
			if err := c.copyBlob(ctx, plain(b)); err != nil {
				return fmt.Errorf("blob %s: %w", b.Digest, err)
			}
		}
		indexed, err = c.dst.store.putManifest(ctx, plain(d), data, "")
		return err
	})
	if err != nil {
		return false, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	c.report.Manifests++
	return indexed, nil
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
	found, err := c.src.listReferrers(ctx, d, c.tags)
	if err != nil {
		return fmt.Errorf("list referrers of %s: %w", d.Digest, err)
	}
	var copied, unlisted []ocispec.Descriptor
	for _, r := range found {
		if c.options.Referrer != nil && !c.options.Referrer(r) {
			continue
		}
		data, err := c.src.rawManifest(ctx, r)
		if fault.KindOf(err) == fault.NotFound {
			continue // listed, but deleted since
		}
		if err != nil {
			return err
		}
		if s := subjectOf(data); s == nil || s.Digest != d.Digest || c.seen[r.Digest] {
			continue // the list is wrong: it refers to something else
		}
		c.seen[r.Digest] = true
		indexed, err := c.copyManifest(ctx, r, data)
		if err != nil {
			return err
		}
		if !indexed {
			unlisted = append(unlisted, describeManifest(r, data))
		}
		copied = append(copied, r)
	}
	if len(unlisted) > 0 {
		if err := c.dst.recordReferrers(ctx, d, unlisted); err != nil {
			return err
		}
	}
	for _, r := range copied {
		if err := c.copyReferrers(ctx, r); err != nil {
			return err
		}
	}
	return nil
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
		c.report.Mounted++
		c.dst.blobs.add(d.Digest)
	} else {
		open := func() (io.ReadCloser, error) { return c.src.openBlob(ctx, d) }
		sent, err := c.dst.pushBlob(ctx, Layer{Descriptor: d, Open: open})
		if err != nil {
			return err
		}
		if sent {
			c.report.Uploaded++
			c.report.Bytes += d.Size
		}
	}
	return nil
}
