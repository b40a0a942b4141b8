package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// layout is one repository of a tree: an OCI image layout (image-spec 1.1).
// Blobs are written under temporary names and renamed; index.json is replaced
// by rename under a lock, so that readers need none and writers lose nothing.
type layout struct {
	tree *tree
	path string // below the tree's directory
}

// Files of a layout that are ours alone. Other tools ignore them.
const (
	indexLock     = ".index.lock"
	referrersLock = ".referrers.lock"
	temporary     = ".tmp-"
)

func (l *layout) file(elem ...string) string {
	return filepath.Join(append([]string{l.path}, elem...)...)
}

func (l *layout) blobFile(d digest.Digest) string {
	return l.file(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// checkBlob looks whether the content of an index entry is there.
func (l *layout) checkBlob(root *os.Root, d ocispec.Descriptor) error {
	if err := validDescriptor(d); err != nil {
		return err
	}
	f, size, err := l.openBlob(root, d.Digest)
	if err != nil {
		return err
	}
	f.Close()
	if size != d.Size {
		return damaged(d.Digest, "has %d bytes, not %d", size, d.Size)
	}
	return nil
}

func damaged(d digest.Digest, format string, args ...any) error {
	return fault.New(fault.Failure, "%w: blob %s %s", errContent, d, fmt.Sprintf(format, args...))
}

// openBlob opens a blob, which must be a regular file: a link could lead to
// anything.
func (l *layout) openBlob(root *os.Root, d digest.Digest) (*os.File, int64, error) {
	name := l.blobFile(d)
	for {
		link, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, 0, fault.New(fault.NotFound, "blob %s not found", d)
		}
		if err != nil {
			return nil, 0, err
		}
		if !link.Mode().IsRegular() {
			return nil, 0, damaged(d, "is not a regular file")
		}
		f, err := root.Open(name)
		if err != nil {
			return nil, 0, err
		}
		info, err := f.Stat()
		if err == nil && os.SameFile(link, info) {
			return f, info.Size(), nil
		}
		f.Close() // another writer has just put the same blob in place: look again
		if err != nil {
			return nil, 0, err
		}
	}
}

func (l *layout) manifest(ctx context.Context, reference string) ([]byte, string, error) {
	root, index, err := l.read()
	if err != nil {
		return nil, "", err
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] != reference && d.Digest.String() != reference {
			continue
		}
		f, size, err := l.openBlob(root, d.Digest)
		if err != nil {
			return nil, "", err
		}
		defer f.Close()
		if size > MaxManifest {
			return nil, "", damaged(d.Digest, "is too large for a manifest: %d bytes", size)
		}
		data, err := io.ReadAll(f)
		return data, d.MediaType, err
	}
	return nil, "", fault.New(fault.NotFound, "not found")
}

func (l *layout) blob(_ context.Context, d ocispec.Descriptor, offset, length int64) (io.ReadCloser, bool, error) {
	root, err := l.tree.open(false)
	if err != nil {
		return nil, false, err
	}
	f, size, err := l.openBlob(root, d.Digest)
	if err != nil {
		return nil, false, err
	}
	if offset == 0 && length == d.Size {
		length = size // so that surplus bytes are noticed
	}
	return sectionOf(f, offset, length), true, nil
}

// sectionOf reads a part of a file and closes the file with it.
func sectionOf(f *os.File, offset, length int64) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, length), f}
}

func (l *layout) exists(_ context.Context, d ocispec.Descriptor) (bool, error) {
	root, index, err := l.read()
	if err == nil {
		err = l.checkBlob(root, d)
	}
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	return err == nil && (!isManifest(d) || indexHas(index, d.Digest)), err
}

func indexHas(index ocispec.Index, d digest.Digest) bool {
	for _, m := range index.Manifests {
		if m.Digest == d {
			return true
		}
	}
	return false
}

func (l *layout) putBlob(ctx context.Context, d ocispec.Descriptor, open opener) error {
	root, err := l.create(ctx)
	if err != nil {
		return err
	}
	if l.checkBlob(root, d) == nil {
		return nil
	}
	content, err := open()
	if err != nil {
		return err
	}
	defer content.Close()
	return l.replace(root, l.blobFile(d.Digest), func(w io.Writer) error {
		_, err := io.Copy(w, newVerifier(contextReader{ctx, content}, d))
		return err
	})
}

// contextReader ends reading when its context does.
type contextReader struct {
	ctx context.Context
	io.ReadCloser
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, ended(r.ctx)
	}
	return r.ReadCloser.Read(b)
}

// mount hard-links a blob of another layout of the same tree.
func (l *layout) mount(ctx context.Context, d ocispec.Descriptor, from store) (bool, error) {
	source, ok := from.(*layout)
	if !ok || source.tree.dir != l.tree.dir {
		return false, nil
	}
	root, err := l.create(ctx)
	if err != nil {
		return false, err
	}
	if err := source.checkBlob(root, d); err != nil {
		return false, err
	}
	name := l.blobFile(d.Digest)
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return false, err
	}
	err = root.Link(source.blobFile(d.Digest), name)
	switch {
	case err == nil:
		return true, syncDir(root, filepath.Dir(name))
	case errors.Is(err, fs.ErrExist):
		return true, l.checkBlob(root, d)
	}
	return false, nil // no links here: the caller copies
}

func (l *layout) putManifest(ctx context.Context, d ocispec.Descriptor, data []byte, tag string) (bool, error) {
	root, err := l.create(ctx)
	if err != nil {
		return false, err
	}
	unlock, err := l.lockFile(ctx, root, indexLock)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := l.checkReferences(root, d, data); err != nil {
		return false, err
	}
	if err := l.replace(root, l.blobFile(d.Digest), func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		return false, err
	}
	return false, l.change(root, func(index *ocispec.Index) { addEntry(index, d, data, tag) })
}

// checkReferences refuses a manifest whose blobs are not there, as registries do.
// A blob may have been removed since it was found present.
func (l *layout) checkReferences(root *os.Root, d ocispec.Descriptor, data []byte) error {
	if d.MediaType != ocispec.MediaTypeImageManifest && d.MediaType != mediaTypeDockerManifest {
		return nil
	}
	m, err := parseManifest(data)
	if err != nil {
		return err
	}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		err := l.checkBlob(root, b)
		if fault.KindOf(err) == fault.NotFound {
			return fault.New(fault.Failure, "%w: %s", errBlobUnknown, b.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errBlobUnknown marks a manifest that was refused because a blob is missing.
var errBlobUnknown = errors.New("the manifest names a blob that the registry does not have")

func (l *layout) tags(context.Context) ([]string, error) {
	_, index, err := l.read()
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, d := range index.Manifests {
		if tag := d.Annotations[ocispec.AnnotationRefName]; tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// referrers finds the manifests of the index whose subject is the one asked for.
func (l *layout) referrers(_ context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	root, index, err := l.read()
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	for _, d := range index.Manifests {
		data, err := l.smallBlob(root, d)
		if err != nil {
			return nil, err
		}
		if s := subjectOf(data); s != nil && s.Digest == subject.Digest {
			found = append(found, describeManifest(d, data))
		}
	}
	return found, nil
}

// smallBlob reads a manifest; one that is missing or too large has no content.
func (l *layout) smallBlob(root *os.Root, d ocispec.Descriptor) ([]byte, error) {
	if validDescriptor(d) != nil || !isManifest(d) || d.Size > MaxManifest {
		return nil, nil
	}
	f, _, err := l.openBlob(root, d.Digest)
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxManifest))
}

func (l *layout) lock(ctx context.Context, _ digest.Digest) (func(), error) {
	root, err := l.create(ctx)
	if err != nil {
		return nil, err
	}
	return l.lockFile(ctx, root, referrersLock)
}

func (l *layout) lockFile(ctx context.Context, root *os.Root, name string) (func(), error) {
	f, err := root.OpenFile(l.file(name), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return lockFile(ctx, f)
}
