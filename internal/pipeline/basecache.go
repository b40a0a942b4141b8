package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/chunk"
	"uenv-ci.dev/internal/image"
)

// baseCache keeps, in a directory of the user's, what local images consist of, so
// that the next upgrade need not read them again. What it says is never trusted:
// the digest of the whole decides. "" keeps nothing.
type baseCache string

// forgetBases is when what nobody asks for any more is removed.
const forgetBases = 90 * 24 * time.Hour

// index describes the image file at path by chunks.
func (c baseCache) index(ctx context.Context, path string, d digest.Digest, grain int64) (chunk.Index, error) {
	if x, ok := c.get(path, d); ok && (grain == 0 || x.Grain == grain) {
		return x, nil
	}
	x, err := image.Chunks(ctx, path, d, grain)
	if err == nil {
		c.put(path, d, x)
	}
	return x, err
}

// get returns what is kept of the file at path.
func (c baseCache) get(path string, d digest.Digest) (chunk.Index, bool) {
	kept, err := c.path(path, d)
	if err != nil {
		return chunk.Index{}, false
	}
	data, err := os.ReadFile(kept)
	if err != nil {
		return chunk.Index{}, false
	}
	x, err := chunk.Decode(data)
	if err == nil {
		_ = os.Chtimes(kept, time.Time{}, time.Now()) // it is used
	}
	return x, err == nil
}

// put keeps what the file at path consists of.
func (c baseCache) put(path string, d digest.Digest, x chunk.Index) {
	if kept, err := c.path(path, d); err == nil {
		c.keep(kept, x.Encode())
	}
}

// path is where a file is kept, for as long as nobody has changed it.
func (c baseCache) path(path string, d digest.Digest) (string, error) {
	if c == "" {
		return "", os.ErrNotExist
	}
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "2 %s %s %d %d %d %d %d", path, d, s.Dev, s.Ino, s.Size, s.Mtim.Nano(), s.Ctim.Nano()))
	return filepath.Join(string(c), "base-"+hex.EncodeToString(sum[:12])+".idx"), nil
}

// keep writes without syncing: what a power cut leaves cannot be decoded, or does
// no harm.
func (c baseCache) keep(path string, data []byte) {
	if os.MkdirAll(string(c), 0o700) != nil {
		return
	}
	c.tidy()
	f, err := os.CreateTemp(string(c), ".tmp-*")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

// forget drops all, after something turned out to be wrong.
func (c baseCache) forget() {
	if c == "" {
		return
	}
	kept, _ := fs.Glob(os.DirFS(string(c)), "base-*.idx")
	for _, name := range kept {
		_ = os.Remove(filepath.Join(string(c), name))
	}
}

func (c baseCache) tidy() {
	entries, err := os.ReadDir(string(c))
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > forgetBases {
			_ = os.Remove(filepath.Join(string(c), e.Name()))
		}
	}
}
