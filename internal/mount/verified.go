package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/localrepo"
)

// stamp says that a file had a digest, and how to know that it is as it was then.
// Nobody but root and the clock sets the time of change.
type stamp struct {
	Digest   digest.Digest
	Device   uint64
	Inode    uint64
	Size     int64
	Modified syscall.Timespec
	Changed  syscall.Timespec
}

func stampOf(path string, d digest.Digest) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}, errors.ErrUnsupported
	}
	return stamp{d, s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim}, nil
}

// Verify checks that a file has a digest. What it found is remembered in the
// user's cache, so that an image is read as a whole only once.
func Verify(ctx context.Context, path string, want digest.Digest, events event.Sink) error {
	before, err := stampOf(path, want)
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	note := noteFile(path)
	if known(note, before) {
		return nil
	}
	var done int64
	got, err := localrepo.HashFile(ctx, path, func(n int) {
		done += int64(n)
		events.Progress(stage, done, before.Size, "B")
	})
	if err != nil {
		return fault.Wrap(fault.KindOf(err), err, "verify %s", path)
	}
	if got != want {
		return fault.WithHint(
			fault.New(fault.Invalid, "mount %s: its digest is %s, not %s", path, got, want),
			"the file is damaged or was replaced; pull it again with --force")
	}
	if after, err := stampOf(path, want); err == nil && after == before {
		remember(note, before)
	}
	return nil
}

// noteFile returns where the stamp of a file is, "" if the user has no cache.
func noteFile(path string) string {
	cache, err := os.UserCacheDir()
	absolute, absErr := filepath.Abs(path)
	if errors.Join(err, absErr) != nil {
		return ""
	}
	return filepath.Join(cache, "uenv-ci", "verified", digest.FromString(absolute).Encoded())
}

func known(note string, now stamp) bool {
	data, err := os.ReadFile(note)
	var s stamp
	return err == nil && json.Unmarshal(data, &s) == nil && s == now
}

// remember is a convenience: without it the file is read again next time.
func remember(note string, s stamp) {
	data, err := json.Marshal(s)
	if err != nil || note == "" || os.MkdirAll(filepath.Dir(note), 0o700) != nil {
		return
	}
	_ = atomicfile.WriteBytes(note, 0o600, data)
}
