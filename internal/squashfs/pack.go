package squashfs

import (
	"context"
	"fmt"

	"uenv-ci.dev/internal/atomicfile"
)

// Pack writes the content of the directory root to a new image named file, as
// Write does. The file appears under its name only when it is complete and on
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
	if p.summary.Digest, err = fileDigest(ctx, f, p.summary.Size); err != nil {
		return Summary{}, err
	}
	return p.summary, f.Commit()
}
