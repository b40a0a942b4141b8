package localrepo

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/atomicfile"
)

// note says that a file had a digest, and how to know that it is as it was then.
// Nobody but root and the clock sets the time of change.
type note struct {
	Path     string // absolute
	Digest   digest.Digest
	Device   uint64
	Inode    uint64
	Size     int64
	Modified syscall.Timespec
	Changed  syscall.Timespec
}

// DigestNotes returns the directory in which this user's digests of image files are
// remembered, "" if the user has no cache.
func DigestNotes() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "uenv-ci", "digests")
}

// KnownDigest returns the digest of a file, and reads it only if it was not read,
// or written, by this user before: directory notes keeps what was found. Without
// such a directory, "", nothing is remembered. While it reads, progress, if not nil,
// is told of bytes.
func KnownDigest(ctx context.Context, path, notes string, progress func(int)) (digest.Digest, error) {
	before, err := noteOf(path, "")
	if err != nil {
		return "", err
	}
	file := noteFile(path, notes)
	var was note
	data, err := os.ReadFile(file)
	if err == nil && json.Unmarshal(data, &was) == nil && was.Digest.Validate() == nil {
		before.Digest = was.Digest
		if was == before {
			return was.Digest, nil
		}
	}
	got, err := HashFile(ctx, path, progress)
	if err != nil {
		return "", err
	}
	before.Digest = got
	if after, err := noteOf(path, got); err == nil && after == before {
		after.keep(file)
	}
	return got, nil
}

// RememberDigest notes the digest of a file that was just written.
func RememberDigest(path, notes string, d digest.Digest) {
	if n, err := noteOf(path, d); err == nil {
		n.keep(noteFile(path, notes))
	}
}

func noteOf(path string, d digest.Digest) (note, error) {
	info, err := os.Stat(path)
	if err != nil {
		return note{}, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return note{}, errors.ErrUnsupported
	}
	absolute, err := filepath.Abs(path)
	return note{absolute, d, s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim}, err
}

// noteFile returns where the note of a file is, "" if there is none.
func noteFile(path, notes string) string {
	absolute, err := filepath.Abs(path)
	if err != nil || notes == "" {
		return ""
	}
	return filepath.Join(notes, digest.FromString(absolute).Encoded())
}

// keep is a convenience: without it the file is read again next time. What is noted
// of files that are gone or changed goes: that costs nothing beside reading one.
func (n note) keep(file string) {
	data, err := json.Marshal(n)
	if err != nil || file == "" || os.MkdirAll(filepath.Dir(file), 0o700) != nil {
		return
	}
	tidyNotes(filepath.Dir(file))
	_ = atomicfile.WriteBytes(file, 0o600, data)
}

// tidyNotes removes the notes that say nothing any more.
func tidyNotes(notes string) {
	entries, err := os.ReadDir(notes)
	if err != nil {
		return
	}
	for _, e := range entries {
		file := filepath.Join(notes, e.Name())
		if digest.NewDigestFromEncoded(digest.SHA256, e.Name()).Validate() != nil {
			continue // not a note, or one that is being written
		}
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var was note
		_ = json.Unmarshal(data, &was)
		if now, err := noteOf(was.Path, was.Digest); err != nil || now != was {
			_ = os.Remove(file)
		}
	}
}
