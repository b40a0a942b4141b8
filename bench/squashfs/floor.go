package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/squashfs"
)

// blockSize is that of images, by default.
const blockSize = 128 << 10

// floor compares what no writer can do without: the codec itself, on the blocks that
// an image holds, each read once and thrown away once it is compressed; and for packing over
// a base, reading the tree and writing an image.
func (b *bench) floor(ctx context.Context) error {
	for _, t := range trees {
		root, out, image := filepath.Join(b.dir, t.name), filepath.Join(b.dir, "out"), filepath.Join(b.dir, t.name+".squashfs")
		raw := filepath.Join(b.dir, t.name+".raw")
		if err := b.image(ctx, t, image); err != nil {
			return err
		}
		argv := b.ours("pure", "store", root, raw)
		if err := (proc.Cmd{Path: argv[0], Args: argv[1:]}).Run(ctx); err != nil {
			return err
		}
		err := b.compare(ctx, "floor "+t.name, []contender{
			{"mksquashfs", mksquashfs(root, out), out},
			{"libzstd alone", b.ours("cgo", "codec", raw), ""},
			{"klauspost alone", b.ours("pure", "codec", raw), ""},
			{"cat tree, cp image", []string{"sh", "-c", `find "$1" -type f -print0 | xargs -0 cat >/dev/null && cp "$2" "$3"`, "sh", root, image, out}, out},
		})
		if err := errors.Join(err, os.Remove(raw)); err != nil {
			return err
		}
	}
	return nil
}

// store packs a tree without compressing it.
func store(ctx context.Context, root, image string) error {
	_, err := squashfs.Pack(ctx, root, image, squashfs.WriteOptions{Codec: squashfs.None})
	return err
}

// compressAll compresses each block of a file, on all processors, and keeps nothing.
func compressAll(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var next atomic.Int64
	var g errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			compress, err := newCompressor()
			if err != nil {
				return err
			}
			src, dst := make([]byte, blockSize), make([]byte, 0, 2*blockSize)
			for {
				n, err := f.ReadAt(src, (next.Add(1)-1)*blockSize)
				if n == 0 && err == io.EOF {
					return nil
				}
				if n == 0 {
					return err
				}
				if err := compress(dst, src[:n]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}
