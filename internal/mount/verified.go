package mount

import (
	"context"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/localrepo"
)

// Verify checks that a file has a digest. What it found is remembered in the
// user's cache, so that an image is read as a whole only once.
func Verify(ctx context.Context, path string, want digest.Digest, events event.Sink) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	var done int64
	got, err := localrepo.KnownDigest(ctx, path, localrepo.DigestNotes(), func(n int) {
		done += int64(n)
		events.Progress(stage, done, info.Size(), "B")
	})
	switch {
	case err != nil:
		return fault.Wrap(fault.KindOf(err), err, "verify %s", path)
	case got != want:
		return fault.WithHint(
			fault.New(fault.Invalid, "mount %s: its digest is %s, not %s", path, got, want),
			"the file is damaged or was replaced; pull it again with --force")
	}
	return nil
}
