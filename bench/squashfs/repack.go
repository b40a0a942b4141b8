package main

import (
	"context"
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/squashfs"
)

// repack compares packing over an image as it was before 5 % of the bytes changed,
// in whole packages.
func (b *bench) repack(ctx context.Context) error {
	for _, t := range trees {
		root, out, old := filepath.Join(b.dir, t.name), filepath.Join(b.dir, "out"), filepath.Join(b.dir, t.name+".old")
		argv := b.ours("cgo", "base", root, old)
		if err := (proc.Cmd{Path: argv[0], Args: argv[1:]}).Run(ctx); err != nil {
			return err
		}
		bare := old + ".bare" // the same, without a table beside it
		if err := errors.Join(removed(bare), os.Link(old, bare)); err != nil {
			return err
		}
		err := b.compare(ctx, "pack over a base "+t.name, []contender{
			{"mksquashfs", mksquashfs(root, out), out},
			{"pack with check, cgo", b.ours("cgo", "pack", root, out), out},
			{"the same over a base", b.ours("cgo", "repack", root, out, old), out},
			{"over one without a table", b.ours("cgo", "repack", root, out, bare), out},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func removed(name string) error {
	if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// pretend packs a tree without the packages that are to be new in it: directories
// of /usr/*, by their names, until they have 5 % of the bytes.
func pretend(ctx context.Context, root, image string) error {
	packages, err := filepath.Glob(filepath.Join(root, "*", "usr", "*", "*"))
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	total := int64(0)
	for _, name := range packages {
		if sizes[name], err = bytesBelow(name); err != nil {
			return err
		}
		total += sizes[name]
	}
	left := total / 20
	var exclude []string
	for _, name := range packages {
		h := fnv.New32a()
		h.Write([]byte(name))
		if h.Sum32()>>8%4 == 0 && sizes[name] < min(left, total/100) {
			left -= sizes[name]
			exclude = append(exclude, name[len(root):])
		}
	}
	_, err = squashfs.Pack(ctx, root, image, squashfs.WriteOptions{KeepBlocks: true, Exclude: exclude})
	return err
}

func bytesBelow(name string) (total int64, err error) {
	err = filepath.WalkDir(name, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		total += info.Size()
		return err
	})
	return total, err
}
