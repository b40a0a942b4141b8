package squashfs

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/atomicfile"
)

// Pack writes the content of the directory root to a new image named file, as
// Write does, decodes each block again and compares it with what was read of the
// tree, and reads the image back whole. The file appears under its name only when it is right, complete and on
// disk; after an error nothing is left of it.
func Pack(ctx context.Context, root, file string, o WriteOptions) (Summary, error) {
	summary, err := pack(ctx, root, file, o)
	if err != nil {
		return Summary{}, fmt.Errorf("pack %s: %w", root, err)
	}
	return summary, nil
}

func pack(ctx context.Context, root, file string, o WriteOptions) (Summary, error) {
	f, err := atomicfile.Create(file, 0o644)
	if err != nil {
		return Summary{}, err
	}
	defer f.Abort()
	p, err := write(ctx, root, f.File, o, true)
	if err != nil {
		return Summary{}, err
	}
	g, checking := errgroup.WithContext(ctx)
	g.Go(func() error { return p.check(checking) })
	g.Go(func() (err error) {
		p.summary.Digest, err = fileDigest(checking, f, p.summary.Size)
		return err
	})
	if err := g.Wait(); err != nil {
		return Summary{}, err
	}
	if err := f.Commit(); err != nil {
		return Summary{}, explainFull(err)
	}
	if p.table != nil {
		p.table.compressor = p.spec.String()
		if err := writeTable(file, p.table); err != nil {
			return Summary{}, fmt.Errorf("write table of blocks: %w", err)
		}
	}
	p.report()
	return p.summary, nil
}
