package registry

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// Annotations by which oras-style clients know that a layer is a directory.
const (
	annotationUnpack    = "io.deis.oras.content.unpack"
	annotationTarDigest = "io.deis.oras.content.digest"
)

// gzipLevel is part of the format: another level is another digest.
const gzipLevel = 6

// DirectoryLayer packs a directory as oras-style clients unpack it: a gzipped
// tar whose names all start with title. Equal content and time give equal bytes:
// entries are sorted, owners are 0, every time is t (the zero time stands for
// 1970), modes are 0755 or 0644. Links must stay inside; other special files are
// refused. The packed bytes are held in memory.
func DirectoryLayer(title string, fsys fs.FS, t time.Time) (Layer, error) {
	if !validTitle(title) {
		return Layer{}, fault.New(fault.Failure, "%q cannot be the name of a directory layer", title)
	}
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	var packed bytes.Buffer
	zw, err := gzip.NewWriterLevel(&packed, gzipLevel)
	if err != nil {
		return Layer{}, err
	}
	hash := digest.Canonical.Digester()
	tw := tar.NewWriter(io.MultiWriter(zw, hash.Hash()))
	p := &packer{tw, fsys, title, t.UTC().Truncate(time.Second)}
	if err := fs.WalkDir(fsys, ".", p.add); err != nil {
		return Layer{}, fmt.Errorf("pack directory %s: %w", title, err)
	}
	if err := tw.Close(); err != nil {
		return Layer{}, fmt.Errorf("pack directory %s: %w", title, err)
	}
	if err := zw.Close(); err != nil {
		return Layer{}, fmt.Errorf("pack directory %s: %w", title, err)
	}
	l := BytesLayer(title, ocispec.MediaTypeImageLayerGzip, packed.Bytes())
	l.Descriptor.Annotations[annotationUnpack] = "true"
	l.Descriptor.Annotations[annotationTarDigest] = hash.Digest().String()
	return l, nil
}

// validTitle keeps titles of layers from leaving the directory they go to.
func validTitle(title string) bool {
	return fs.ValidPath(title) && title != "." && !strings.ContainsAny(title, "\\\x00")
}

type packer struct {
	w     *tar.Writer
	fsys  fs.FS
	title string
	time  time.Time
}

// add writes one entry; it is a fs.WalkDirFunc.
func (p *packer) add(name string, e fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: path.Join(p.title, name), ModTime: p.time, Mode: 0o644}
	switch {
	case e.IsDir():
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
		h.Name += "/"
		return p.w.WriteHeader(h)
	case e.Type() == fs.ModeSymlink:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		if h.Linkname, err = fs.ReadLink(p.fsys, name); err != nil {
			return err
		}
		if !staysInside(name, h.Linkname) {
			return fault.New(fault.Invalid, "link %s leads out of the directory, to %s", name, h.Linkname)
		}
		return p.w.WriteHeader(h)
	case !e.Type().IsRegular():
		return fault.New(fault.Invalid, "%s is neither file, directory nor link", name)
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if info.Mode().Perm()&0o111 != 0 {
		h.Mode = 0o755
	}
	return p.file(name, h)
}

func (p *packer) file(name string, h *tar.Header) error {
	f, err := p.fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.w.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.Copy(p.w, io.LimitReader(f, h.Size)); err != nil || n != h.Size {
		return fmt.Errorf("%s changed while it was packed (%d of %d bytes): %w", name, n, h.Size, err)
	}
	return nil
}

// staysInside tells whether a relative link at name points into the same tree. It goes
// up at its beginning only: the parent of what a name stands for is another directory
// where that is a link itself.
func staysInside(name, target string) bool {
	if target == "" || path.IsAbs(target) {
		return false
	}
	down := false
	for part := range strings.SplitSeq(target, "/") {
		if part == ".." && down {
			return false
		}
		down = down || part != ".." && part != "." && part != ""
	}
	inside := path.Join(path.Dir(name), target)
	return inside == "." || fs.ValidPath(inside)
}
