package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/squashfs"
)

// Contents is what is in an image, as far as it says so itself.
type Contents struct {
	Size     int64     `json:"size"` // of the image, in bytes
	Env      *meta.Env `json:"env,omitempty"`
	Packages []Package `json:"packages"`
	// Listed is false if nothing lists the packages, as in images that Spack has
	// not made.
	Listed bool `json:"listed"`
	// Partial is set if only names and versions of the packages are known.
	Partial bool `json:"partial,omitempty"`
}

// maxDocument bounds what is read of one file in an image, in bytes.
const maxDocument = 64 << 20

// ReadContents reads what is in an image of a registry without downloading it:
// Spack's database by parts of the image, else the attached list of packages.
// What is read by parts cannot be verified: it is for people to look at.
func ReadContents(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) (Contents, error) {
	m, _, err := repo.Manifest(ctx, image)
	if err != nil {
		return Contents{}, err
	}
	layer, err := meta.ImageLayer(m)
	if err != nil {
		return Contents{}, fault.New(fault.Invalid, "%s@%s is not a uenv image: %w", repo.Name(), image.Digest, err)
	}
	c, err := contentsAt(newPages(repo.ReaderAt(ctx, layer), layer.Size), layer.Size)
	c.Size = layer.Size
	if err != nil && fault.KindOf(err) != fault.Refused && fault.KindOf(err) != fault.Invalid {
		return c, err
	}
	unreadable := err
	if c.Env == nil {
		var about About
		if err := about.readEnv(ctx, repo, image); err != nil {
			return c, err
		}
		c.Env = about.Env
	}
	if !c.Listed {
		if err := c.readSBOM(ctx, repo, image); err != nil {
			return c, err
		}
	}
	if !c.Listed && c.Env == nil {
		return c, unreadable
	}
	return c, nil
}

// FileContents reads what is in an image on disk.
func FileContents(path string) (Contents, error) {
	img, err := squashfs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Contents{}, fault.New(fault.NotFound, "%w", err)
	}
	if err != nil {
		return Contents{}, fault.Wrap(fault.Invalid, err, "read image %s", path)
	}
	defer img.Close()
	c, err := contentsOf(img)
	if info, statErr := os.Stat(path); statErr == nil {
		c.Size = info.Size()
	}
	return c, err
}

func contentsAt(r io.ReaderAt, size int64) (Contents, error) {
	img, err := squashfs.NewReader(r, size, squashfs.Limits{ReadFile: maxDocument})
	if err != nil {
		return Contents{}, err
	}
	defer img.Close()
	return contentsOf(img)
}

func contentsOf(img *squashfs.Image) (Contents, error) {
	c := Contents{Packages: []Package{}}
	data, err := img.ReadFile(meta.EnvFile)
	if err == nil {
		env, parseErr := meta.ParseEnv(data)
		if err = parseErr; err == nil {
			c.Env = &env
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("read %s: %w", meta.EnvFile, err)
	}
	data, err = img.ReadFile(DatabaseFile)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read %s: %w", DatabaseFile, err)
	}
	if c.Packages, err = ParseDatabase(data); err != nil {
		return c, err
	}
	c.Listed = true
	return c, nil
}

// readSBOM takes names and versions from the newest attached list of packages.
func (c *Contents) readSBOM(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) error {
	attached, err := repo.Referrers(ctx, image, meta.TypeSBOM)
	if err != nil || len(attached) == 0 {
		return err
	}
	data, err := repo.Document(ctx, attached[0], meta.SBOMTitle)
	if k := fault.KindOf(err); err != nil && (k == fault.NotFound || k == fault.Invalid) {
		return nil // another tool's: nothing that we know how to read
	}
	if err != nil {
		return err
	}
	sbom, err := meta.ParseSBOM(data)
	if err != nil {
		return nil
	}
	c.Packages, c.Listed, c.Partial = []Package{}, true, true
	for _, p := range sbom.List() {
		c.Packages = append(c.Packages, Package{Name: p.Name, Version: p.Version, Hash: p.Hash, External: p.External})
	}
	return nil
}

// pageSize is how much of a remote image one request brings at least: an image's
// tables are small and lie together.
const pageSize = 64 << 10

// pages reads a remote file by whole pages and keeps them.
type pages struct {
	r    io.ReaderAt
	size int64

	mu   sync.Mutex
	kept map[int64][]byte
}

func newPages(r io.ReaderAt, size int64) *pages {
	return &pages{r: r, size: size, kept: map[int64][]byte{}}
}

// ReadAt implements io.ReaderAt. Pages that are missing one after the other come
// with one request.
func (p *pages) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 || offset >= p.size {
		return 0, io.EOF
	}
	want := min(int64(len(b)), p.size-offset)
	p.mu.Lock()
	defer p.mu.Unlock()
	first, last := offset/pageSize, (offset+want-1)/pageSize
	for page := first; page <= last; page++ {
		if p.kept[page] == nil {
			if err := p.fetch(page, last); err != nil {
				return 0, err
			}
		}
	}
	n := 0
	for page := first; page <= last; page++ {
		content := p.kept[page]
		n += copy(b[n:want], content[max(0, offset-page*pageSize):])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// fetch reads the pages from page on that are missing, up to last.
func (p *pages) fetch(page, last int64) error {
	end := page + 1
	for end <= last && p.kept[end] == nil {
		end++
	}
	data := make([]byte, min(end*pageSize, p.size)-page*pageSize)
	if n, err := p.r.ReadAt(data, page*pageSize); n < len(data) {
		return err
	}
	for ; page < end; page++ {
		size := min(pageSize, int64(len(data)))
		p.kept[page], data = data[:size:size], data[size:]
	}
	return nil
}
