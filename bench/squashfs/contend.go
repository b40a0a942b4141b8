package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/squashfs"
)

// contend does one thing in this process, to be measured from outside.
func contend(ctx context.Context, args []string) error {
	switch args[0] {
	case "grow":
		for _, t := range trees {
			if err := t.grow(filepath.Join(args[1], t.name)); err != nil {
				return err
			}
		}
		return nil
	case "write":
		f, err := os.Create(args[2])
		if err != nil {
			return err
		}
		if _, err := squashfs.Write(ctx, args[1], f, squashfs.WriteOptions{}); err != nil {
			return err
		}
		return f.Close()
	case "store":
		return store(ctx, args[1], args[2])
	case "codec":
		return compressAll(args[1])
	case "base":
		return pretend(ctx, args[1], args[2])
	case "repack":
		_, err := squashfs.Pack(ctx, args[1], args[2], squashfs.WriteOptions{Base: args[3], KeepBlocks: true})
		return err
	case "pack":
		_, err := squashfs.Pack(ctx, args[1], args[2], squashfs.WriteOptions{})
		return err
	case "walk":
		m, err := squashfs.Open(args[1])
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = walk(m)
		return err
	case "unpack":
		m, err := squashfs.Open(args[1])
		if err != nil {
			return err
		}
		defer m.Close()
		return squashfs.Unpack(ctx, m, args[2], squashfs.UnpackOptions{})
	}
	return fmt.Errorf("cannot %s", args[0])
}

// mksquashfs returns the command that is the yardstick for writers.
func mksquashfs(root, image string) []string {
	return []string{"mksquashfs", root, image, "-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-quiet", "-no-progress"}
}

// pack compares writers.
func (b *bench) pack(ctx context.Context) error {
	for _, t := range trees {
		root, out := filepath.Join(b.dir, t.name), filepath.Join(b.dir, "out")
		mk := mksquashfs(root, out)
		err := b.compare(ctx, "pack "+t.name, []contender{
			{"mksquashfs", mk, out},
			{"mksquashfs -mem 256M", append(mk[:len(mk):len(mk)], "-mem", "256M"), out},
			{"write, cgo", b.ours("cgo", "write", root, out), out},
			{"write, pure Go", b.ours("pure", "write", root, out), out},
			{"pack with check, cgo", b.ours("cgo", "pack", root, out), out},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unpack compares extraction of the same image.
func (b *bench) unpack(ctx context.Context) error {
	for _, t := range trees {
		image, out := filepath.Join(b.dir, t.name+".squashfs"), filepath.Join(b.dir, "unpacked")
		if err := b.image(ctx, t, image); err != nil {
			return err
		}
		err := b.compare(ctx, "unpack "+t.name, []contender{
			{"unsquashfs", []string{"unsquashfs", "-q", "-n", "-d", out, image}, out},
			{"unpack", b.ours("pure", "unpack", image, out), out},
		})
		if err != nil {
			return err
		}
		if err := os.RemoveAll(out); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) image(ctx context.Context, t tree, image string) error {
	if _, err := os.Stat(image); err == nil {
		return nil
	}
	argv := b.ours("cgo", "pack", filepath.Join(b.dir, t.name), image)
	return proc.Cmd{Path: argv[0], Args: argv[1:]}.Run(ctx)
}
