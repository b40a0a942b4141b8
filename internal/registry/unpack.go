package registry

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// UnpackLimits bound what a layer may become. Zero stands for the default.
type UnpackLimits struct {
	Bytes   int64 // of all files together, unpacked; 1 GiB
	Entries int   // files, directories and links; 100 000
}

func (l UnpackLimits) bytes() int64 { return cmp.Or(l.Bytes, 1<<30) }
func (l UnpackLimits) entries() int { return cmp.Or(l.Entries, 100_000) }

// UnpackLayer fetches a layer and puts it below the existing directory dst under
// its title: a directory layer as a directory, any other as a file. Nothing
// appears under that name before the digests of the blob and of the tar inside
// were verified; something that is there already is an error. Names and links
// that lead outside, special files and content beyond the limits are refused with
// kind Invalid. Owners, times and special mode bits are dropped.
func UnpackLayer(ctx context.Context, p *Repository, d ocispec.Descriptor, dst string, l UnpackLimits) error {
	title := d.Annotations[ocispec.AnnotationTitle]
	if !validTitle(title) {
		return fault.New(fault.Invalid, "layer %s has no usable title: %q", d.Digest, title)
	}
	if _, err := os.Lstat(filepath.Join(dst, title)); err == nil {
		return fmt.Errorf("unpack layer %s: %s: %w", title, filepath.Join(dst, title), fs.ErrExist)
	}
	if err := unpackLayer(ctx, p, d, dst, title, l); err != nil {
		return fmt.Errorf("unpack layer %s (%s) of %s: %w", title, d.Digest, p, err)
	}
	return nil
}

func unpackLayer(ctx context.Context, p *Repository, d ocispec.Descriptor, dst, title string, l UnpackLimits) (err error) {
	draft, err := os.MkdirTemp(dst, ".unpack-")
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(draft)
	if err != nil {
		os.Remove(draft)
		return err
	}
	defer func() {
		root.Close()
		err = errors.Join(err, os.RemoveAll(draft))
	}()
	x := &extractor{root: root, title: title, limits: l}
	if err := readLayer(ctx, p, d, l, x.add); err != nil {
		return err
	}
	if _, err := root.Lstat(title); err != nil {
		return fault.New(fault.Invalid, "it has no entry %s", title)
	}
	final := filepath.Join(dst, title)
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return err
	}
	return os.Rename(filepath.Join(draft, title), final)
}

// LayerFile returns one file of a layer by its full name, such as
// "meta/env.json", after the whole layer was verified. The error has kind
// NotFound if the layer has no such file.
func (p *Repository) LayerFile(ctx context.Context, d ocispec.Descriptor, name string) ([]byte, error) {
	var data []byte
	found := false
	err := readLayer(ctx, p, d, UnpackLimits{}, func(h *tar.Header, content io.Reader) error {
		if h.Typeflag != tar.TypeReg || path.Clean(h.Name) != name {
			return nil
		}
		if h.Size > maxLayerFile {
			return fault.New(fault.Invalid, "%s has %d bytes, more than the %d that are read", name, h.Size, maxLayerFile)
		}
		var err error
		data, err = io.ReadAll(content)
		found = true
		return err
	})
	if err == nil && !found {
		err = fault.New(fault.NotFound, "it has no file %s", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read layer %s (%s) of %s: %w", clean(d.Annotations[ocispec.AnnotationTitle]), d.Digest, p, err)
	}
	return data, nil
}

// maxLayerFile bounds a file that is read into memory, in bytes.
const maxLayerFile = 64 << 20

// readLayer calls visit for each entry of a layer and verifies the layer as it
// goes; only when readLayer returns nil was all of it right. A layer that is not
// to be unpacked is one regular file named by its title.
func readLayer(ctx context.Context, p *Repository, d ocispec.Descriptor, l UnpackLimits, visit func(*tar.Header, io.Reader) error) error {
	if d.Size > l.bytes() {
		return fault.New(fault.Invalid, "the layer has %d bytes, more than the %d allowed", d.Size, l.bytes())
	}
	blob, err := p.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer blob.Close()
	if d.Annotations[annotationUnpack] != "true" {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: d.Annotations[ocispec.AnnotationTitle], Size: d.Size, Mode: 0o644}
		if err := visit(h, blob); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, blob)
		return err
	}
	err = readTar(blob, d, l, visit)
	if fault.KindOf(err) == fault.Invalid {
		// Before the archive is blamed: are these the bytes that were published?
		if _, wrong := io.Copy(io.Discard, blob); errors.Is(wrong, errContent) {
			return wrong
		}
	}
	return err
}

func readTar(blob io.Reader, d ocispec.Descriptor, l UnpackLimits, visit func(*tar.Header, io.Reader) error) error {
	content, err := decompress(blob)
	if err != nil {
		return err
	}
	sum := digest.Canonical.Hash()
	// Headers and padding are not content: twice the limit and a block an entry
	// is beyond every honest archive.
	budget := &limited{r: content, left: 2*l.bytes() + 4096*int64(l.entries()), sum: sum}
	if err := eachEntry(tar.NewReader(budget), l, visit); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, budget); err != nil { // what follows the end of the archive
		return err
	}
	if _, err := io.Copy(io.Discard, blob); err != nil { // lets the blob verify itself
		return err
	}
	want := d.Annotations[annotationTarDigest]
	if got := digest.NewDigest(digest.Canonical, sum).String(); want != "" && got != want {
		return fault.New(fault.Invalid, "the archive's digest is %s, not %s", got, clean(want))
	}
	return nil
}

// decompress undoes gzip, which is recognised by its first bytes.
func decompress(blob io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(blob)
	magic, err := buffered.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		return buffered, nil
	}
	zr, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fault.New(fault.Invalid, "bad gzip: %w", err)
	}
	return zr, nil
}

// limited hashes what it reads and stops a compression bomb.
type limited struct {
	r    io.Reader
	left int64
	sum  hash.Hash
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, fault.New(fault.Invalid, "the archive is larger than is allowed")
	}
	n, err := l.r.Read(b[:min(int64(len(b)), l.left)])
	l.sum.Write(b[:n])
	l.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) && fault.KindOf(err) == fault.Failure {
		err = fault.New(fault.Invalid, "bad archive: %w", err)
	}
	return n, err
}

func eachEntry(tr *tar.Reader, l UnpackLimits, visit func(*tar.Header, io.Reader) error) error {
	bytes := l.bytes()
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badArchive(err)
		}
		if bytes -= h.Size; n >= l.entries() || bytes < 0 || h.Size < 0 {
			return fault.New(fault.Invalid, "the archive has more than %d entries or %d bytes", l.entries(), l.bytes())
		}
		if err := visit(h, tr); err != nil {
			return badArchive(err)
		}
	}
}

// badArchive gives errors of the archive's own their kind; those of the registry
// and of the file system keep theirs.
func badArchive(err error) error {
	for _, bad := range []error{io.ErrUnexpectedEOF, tar.ErrHeader, gzip.ErrHeader, gzip.ErrChecksum} {
		if errors.Is(err, bad) && fault.KindOf(err) == fault.Failure {
			return fault.New(fault.Invalid, "bad archive: %w", err)
		}
	}
	return err
}

// extractor writes entries below a root of its own, so that no name and no link
// can reach anything else.
type extractor struct {
	root   *os.Root
	title  string
	limits UnpackLimits
}

func (x *extractor) add(h *tar.Header, content io.Reader) error {
	name, err := x.name(h.Name)
	if err != nil {
		return err
	}
	if err := x.parents(path.Dir(name)); err != nil {
		return fault.New(fault.Invalid, "entry %q: %w", clean(h.Name), err)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err = x.root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		return x.file(name, h, content)
	case tar.TypeSymlink:
		err = x.symlink(name, h.Linkname)
	case tar.TypeLink:
		err = x.hardlink(name, h.Linkname)
	default:
		err = fmt.Errorf("its type %q is not allowed", h.Typeflag)
	}
	if err != nil {
		return fault.New(fault.Invalid, "entry %q: %w", clean(h.Name), err)
	}
	return nil
}

// name returns the path of an entry, which must be the title or below it.
func (x *extractor) name(name string) (string, error) {
	clean := strings.TrimSuffix(strings.TrimPrefix(name, "./"), "/")
	if !fs.ValidPath(clean) || clean != x.title && !strings.HasPrefix(clean, x.title+"/") {
		return "", fault.New(fault.Invalid, "entry %q is outside of %s", name, x.title)
	}
	return clean, nil
}

func (x *extractor) symlink(name, target string) error {
	inside := strings.TrimPrefix(strings.TrimPrefix(name, x.title), "/")
	if inside == "" || !staysInside(inside, target) {
		return fmt.Errorf("the link leads out of %s, to %q", x.title, target)
	}
	return x.root.Symlink(target, name)
}

// hardlink refuses links to links, which would mean something else at another
// depth.
func (x *extractor) hardlink(name, linkname string) error {
	target, err := x.name(linkname)
	if err != nil {
		return err
	}
	info, err := x.root.Lstat(target)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("hard link to %q, which is no file", target)
	}
	return x.root.Link(target, name)
}

// parents makes the directories above an entry and refuses to go through links:
// below one, the depth that staysInside counts would be wrong.
func (x *extractor) parents(dir string) error {
	if err := x.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for ; dir != "."; dir = path.Dir(dir) {
		info, err := x.root.Lstat(dir)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%q is not a directory", dir)
		}
	}
	return nil
}

func (x *extractor) file(name string, h *tar.Header, content io.Reader) error {
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Invalid, "entry %q is there twice", clean(h.Name))
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return withSpaceHint(errors.Join(err, f.Close()))
}
