package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
)

// Limits of index.json and oci-layout, in bytes.
const (
	maxIndex      = 64 << 20
	maxLayoutFile = 64 << 10
)

// read returns the tree's root and the layout's index. A layout that does not
// exist has kind NotFound.
func (l *layout) read() (*os.Root, ocispec.Index, error) {
	root, err := l.tree.open(false)
	if err != nil {
		return nil, ocispec.Index{}, err
	}
	index, err := l.readIndex(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, index, fault.New(fault.NotFound, "there is no such repository")
	}
	return root, index, err
}

func (l *layout) readIndex(root *os.Root) (ocispec.Index, error) {
	data, err := l.readPart(root, ocispec.ImageIndexFile, maxIndex)
	if err != nil {
		return ocispec.Index{}, err
	}
	return parseIndex(data)
}

// readPart reads a regular file of the layout.
func (l *layout) readPart(root *os.Root, name string, limit int64) ([]byte, error) {
	data, err := bounded.ReadFileIn(root, l.file(name), limit)
	return data, fault.Wrap(fault.KindOf(err), err, "read %s of %s", name, l.path)
}

// parseIndex reads index.json. Entries with bad digests are dropped, so that
// none becomes a path.
func parseIndex(data []byte) (ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return index, fault.New(fault.Invalid, "read index.json: %w", err)
	}
	if index.SchemaVersion != 2 {
		return index, fault.New(fault.Invalid, "index.json has schema version %d, not 2", index.SchemaVersion)
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return validDescriptor(d) != nil })
	return index, nil
}

// create makes sure that the layout exists.
func (l *layout) create(ctx context.Context) (*os.Root, error) {
	root, err := l.tree.open(true)
	if err != nil {
		return nil, err
	}
	if _, err := root.Lstat(l.file(ocispec.ImageLayoutFile)); err == nil {
		return root, l.checkVersion(root)
	}
	if err := l.initialise(ctx, root); err != nil {
		return nil, fmt.Errorf("create layout: %w", err)
	}
	return root, nil
}

func (l *layout) initialise(ctx context.Context, root *os.Root) error {
	if err := root.MkdirAll(l.file(ocispec.ImageBlobsDir, digest.SHA256.String()), 0o777); err != nil {
		return err
	}
	unlock, err := l.lockFile(ctx, root, indexLock)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := root.Lstat(l.file(ocispec.ImageIndexFile)); errors.Is(err, fs.ErrNotExist) {
		if err := l.writeJSON(root, ocispec.ImageIndexFile, emptyIndex()); err != nil {
			return err
		}
	}
	// oci-layout comes last, so that a layout that has it is complete.
	return l.writeJSON(root, ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
}

func (l *layout) writeJSON(root *os.Root, name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return l.replace(root, l.file(name), func(w io.Writer) error { _, err := w.Write(data); return err })
}

// change edits index.json. The caller holds the lock.
func (l *layout) change(root *os.Root, edit func(*ocispec.Index)) error {
	index, err := l.readIndex(root)
	if err != nil {
		return err
	}
	edit(&index)
	if index.Manifests == nil {
		index.Manifests = []ocispec.Descriptor{} // other tools expect a list
	}
	return l.writeJSON(root, ocispec.ImageIndexFile, index)
}

// addEntry lists a manifest, under tag if there is one. A manifest has one entry
// for each of its tags, or a single one without a tag; what the tag stood for
// before keeps an entry.
func addEntry(index *ocispec.Index, d ocispec.Descriptor, data []byte, tag string) {
	if tag == "" && indexHas(*index, d.Digest) {
		return
	}
	entry := plain(d)
	entry.ArtifactType = describeManifest(d, data).ArtifactType
	if tag != "" {
		dropTag(index, tag)
		index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
			return m.Digest == d.Digest && m.Annotations[ocispec.AnnotationRefName] == ""
		})
		entry.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	index.Manifests = append(index.Manifests, entry)
}

// dropTag removes a tag and keeps its manifest listed.
func dropTag(index *ocispec.Index, tag string) {
	i := slices.IndexFunc(index.Manifests, func(m ocispec.Descriptor) bool {
		return m.Annotations[ocispec.AnnotationRefName] == tag
	})
	if i < 0 {
		return
	}
	entry := index.Manifests[i]
	index.Manifests = slices.Delete(index.Manifests, i, i+1)
	if !indexHas(*index, entry.Digest) {
		entry.Annotations = maps.Clone(entry.Annotations)
		delete(entry.Annotations, ocispec.AnnotationRefName)
		index.Manifests = append(index.Manifests, entry)
	}
}

func dropEntries(index *ocispec.Index, d digest.Digest) {
	index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == d })
}

func (l *layout) checkVersion(root *os.Root) error {
	data, err := l.readPart(root, ocispec.ImageLayoutFile, maxLayoutFile)
	if err != nil {
		return err
	}
	var v ocispec.ImageLayout
	if json.Unmarshal(data, &v) != nil || v.Version != ocispec.ImageLayoutVersion {
		return fault.New(fault.Invalid, "%s is not an OCI image layout of version %s", l.path, ocispec.ImageLayoutVersion)
	}
	return nil
}

func emptyIndex() ocispec.Index {
	return ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
}
