// Package image makes images of installed stores, publishes them to a registry
// and fetches them from there.
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/squashfs"
)

// nobody owns everything in an image: the number, since not every system has a
// group of that name.
const nobody = 65534

// maxEnv bounds meta/env.json, in bytes.
const maxEnv = 16 << 20

// File is an image on disk.
type File struct {
	Path   string        `json:"path"`
	Digest digest.Digest `json:"digest"` // of the file
	Size   int64         `json:"size"`   // in bytes
	Mount  string        `json:"mount"`  // where the image wants to be mounted; "" if it does not say
	Codec  string        `json:"codec"`  // compressor, version, level and block size; "" if not packed by us
}

// PackOptions say how an image is packed. The zero value packs with zstd.
type PackOptions struct {
	Created time.Time // of the image
	ModTime time.Time // of every file in it; zero is Created
	// Owner owns every file in the image; nil is nobody. KeepOwners leaves the owners
	// that the files have.
	Owner      *squashfs.Owner
	KeepOwners bool
	Codec      squashfs.Codec
	Level      int // 0 is the codec's default
	BlockSize  int // in bytes; 0 is 128 KiB
	Workers    int // 0 is one per processor
	Exclude    []string
	// Mksquashfs has the program of that name pack, which excludes nothing.
	Mksquashfs bool
	// Base is an earlier image whose blocks are copied where that changes nothing,
	// KeepBlocks makes the new one fit to be a base: see squashfs.WriteOptions.
	Base       string
	KeepBlocks bool
	Events     event.Sink
}

// Pack makes an image of the directory store. The file out appears only when
// the image is complete and has been read back.
func Pack(ctx context.Context, store, out string, o PackOptions) (File, error) {
	env, err := readEnv(os.DirFS(store))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return File{}, err
	}
	pack := squashfs.Pack
	if o.Mksquashfs {
		pack = squashfs.PackByMksquashfs
	}
	summary, err := pack(ctx, store, out, squashfs.WriteOptions{
		Codec: o.Codec, Level: o.Level, BlockSize: o.BlockSize, Workers: o.Workers, Exclude: o.Exclude,
		Base: o.Base, KeepBlocks: o.KeepBlocks,
		Time: o.Created, ModTime: o.ModTime, ForceOwner: o.owner(), Events: o.Events,
	})
	if err != nil {
		return File{}, err
	}
	localrepo.RememberDigest(out, localrepo.DigestNotes(), summary.Digest)
	return File{Path: out, Digest: summary.Digest, Size: summary.Size, Mount: env.Mount, Codec: summary.Compressor()}, nil
}

// owner returns who is to own every file, nil where the owners stay.
func (o PackOptions) owner() *squashfs.Owner {
	switch {
	case o.KeepOwners:
		return nil
	case o.Owner == nil:
		return &squashfs.Owner{UID: nobody, GID: nobody}
	}
	return o.Owner
}

// Alike tells whether an image on disk was packed as o says, so that its blocks are
// those that packing the same content would make.
func Alike(path string, o PackOptions) bool {
	if o.Mksquashfs {
		return false
	}
	c, err := squashfs.WriteOptions{Codec: o.Codec, Level: o.Level, BlockSize: o.BlockSize}.Coding()
	if err != nil {
		return false
	}
	img, err := open(path)
	if err != nil {
		return false
	}
	defer img.Close()
	said, err := img.Compressor()
	want := squashfs.Summary{Codec: c.Codec.String(), CodecVersion: c.Version, Level: c.Level, BlockSize: c.BlockSize}
	return err == nil && said == want.Compressor()
}

// Stat describes an image that is on disk already; for its digest it reads the
// whole file, unless this user packed or read it before and it is as it was. A file
// that is no image has kind Invalid.
func Stat(ctx context.Context, path string) (File, error) {
	img, err := open(path)
	if err != nil {
		return File{}, err
	}
	defer img.Close()
	env, err := readEnv(img)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return File{}, err
	}
	codec, err := img.Compressor()
	if err != nil {
		return File{}, fmt.Errorf("read image %s: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return File{}, fmt.Errorf("read image: %w", err)
	}
	d, err := localrepo.KnownDigest(ctx, path, localrepo.DigestNotes(), nil)
	if err != nil {
		return File{}, fmt.Errorf("read image %s: %w", path, err)
	}
	return File{Path: path, Digest: d, Size: info.Size(), Mount: env.Mount, Codec: codec}, nil
}

// Env reads meta/env.json inside an image on disk. Without one the error wraps
// fs.ErrNotExist.
func Env(path string) (meta.Env, error) {
	img, err := open(path)
	if err != nil {
		return meta.Env{}, err
	}
	defer img.Close()
	return readEnv(img)
}

func open(path string) (*squashfs.Image, error) {
	img, err := squashfs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "no file %s", path)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read image")
	}
	return img, nil
}

func readEnv(fsys fs.FS) (meta.Env, error) {
	f, err := fsys.Open(meta.EnvFile)
	if err != nil {
		return meta.Env{}, fmt.Errorf("read %s: %w", meta.EnvFile, err)
	}
	defer f.Close()
	data, err := bounded.ReadAll(f, maxEnv)
	if err != nil {
		return meta.Env{}, fault.Wrap(fault.Invalid, err, "read %s", meta.EnvFile)
	}
	env, err := meta.ParseEnv(data)
	return env, fault.Wrap(fault.Invalid, err, "read %s", meta.EnvFile)
}

// PackedAt returns the time that an image file says it was made at.
func PackedAt(path string) (time.Time, error) {
	img, err := open(path)
	if err != nil {
		return time.Time{}, err
	}
	defer img.Close()
	return img.Info().Time, nil
}
