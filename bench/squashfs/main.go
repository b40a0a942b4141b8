// Command squashfs measures internal/squashfs against squashfs-tools: side by
// side, interleaved, in processes of their own. What counts are the ratios of
// medians in one run, since machines differ and others work on them too.
//
//	go run ./bench/squashfs [-dir DIR] [-runs N] [-keep BYTES] [-only pack|repack|unpack|read|floor]
//
// It copies two trees from /usr into DIR (default: a new directory in /dev/shm): A has
// 1.87 GB in 50,000 entries, which mksquashfs packs to about 573 MB, B 100,000 small
// files, 347 MB, which it packs to about 113 MB.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"uenv-ci.dev/bench/memory"
	"uenv-ci.dev/internal/proc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) > 1 && os.Args[1] == "contend" {
		return contend(ctx, os.Args[2:])
	}
	dir := flag.String("dir", "", "where trees and images go; kept if given")
	runs := flag.Int("runs", 5, "runs of each contender")
	kept := flag.Int64("keep", 3<<30, "bytes of DIR's memory that the host of a virtual machine is kept from taking back; 0 if DIR is on disk")
	only := flag.String("only", "", "pack, repack, unpack, read or floor")
	flag.Parse()
	if *dir == "" {
		made, err := os.MkdirTemp("/dev/shm", "bench-squashfs-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(made)
		*dir = made
	}
	b := &bench{dir: *dir, runs: *runs}
	if err := b.build(ctx); err != nil {
		return err
	}
	// In another process, since each child inherits this one's peak memory.
	if err := (proc.Cmd{Path: b.binary("pure"), Args: []string{"contend", "grow", *dir}, Stdout: os.Stdout}).Run(ctx); err != nil {
		return err
	}
	if *kept > 0 {
		give, err := memory.Keep(*dir, *kept)
		if err != nil {
			return err
		}
		defer give()
	}
	for name, part := range map[string]func(context.Context) error{"pack": b.pack, "repack": b.repack, "unpack": b.unpack, "read": b.read, "floor": b.floor} {
		if *only != "" && *only != name {
			continue
		}
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}
