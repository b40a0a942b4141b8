package squashfs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// stage is the name under which packing emits its events.
const stage = "pack"

// Owner is a user and a group, by number.
type Owner struct{ UID, GID uint32 }

// WriteOptions says how an image is made. The zero value is useful: zstd at
// level 3 in blocks of 128 KiB, all times 1970-01-01, owners as they are.
type WriteOptions struct {
	Codec     Codec
	Level     int // 0 is the codec's default: zstd 3, gzip 9
	BlockSize int // a power of two from 4 KiB to 1 MiB; 0 is 128 KiB

	Time       time.Time // of the image
	ModTime    time.Time // of every inode; zero is Time
	ForceOwner *Owner    // of every inode; nil keeps the owners

	// Exclude holds patterns as of path.Match. One without a slash is matched
	// against the last part of each path, one with a slash against the whole
	// path from the root. What is below an excluded directory is excluded.
	Exclude []string

	// Base names an earlier image, with its table of blocks beside it, or none, in
	// which case its blocks are decoded to learn their contents. Blocks of the same
	// content are copied from it instead of being compressed again, if
	// that gives the same bytes: the image does not depend on the base, nor on
	// whether it is whole. A base that is of no use is told by a warning.
	Base string
	// KeepBlocks has Pack write the new image's table of blocks beside it, so
	// that it can be a base.
	KeepBlocks bool

	Workers int // that read and compress at once; 0 is one more than there are processors
	Events  event.Sink
}

// Summary says what was written.
type Summary struct {
	Size   int64         `json:"size"`   // of the file, in bytes
	Digest digest.Digest `json:"digest"` // sha256 of the file; "" of Write

	Files       int   `json:"files"` // names that are not directories
	Directories int   `json:"directories"`
	Links       int   `json:"links"`            // further names of a file already counted
	InputBytes  int64 `json:"input_bytes"`      // content of all files, hard links once
	Reused      int64 `json:"reused,omitempty"` // bytes of the image that the base spared compressing

	Codec        string `json:"codec"`
	CodecVersion string `json:"codec_version,omitempty"` // the library that compressed, with its version
	Level        int    `json:"level"`
	BlockSize    int    `json:"block_size"`
}

// Write packs the content of the directory root into out, which it overwrites
// from the start. The bytes depend only on the tree's names, content, modes,
// owners and extended attributes and on the options. After an error the content
// of out is of no use; a file of the tree that changes meanwhile is an error.
//
// The superblock comes first and is known last, so the digest takes reading all
// again. Pack does that while it checks the image; Write leaves it.
func Write(ctx context.Context, root string, out *os.File, o WriteOptions) (Summary, error) {
	p, err := write(ctx, root, out, o, false)
	if err != nil {
		return Summary{}, fmt.Errorf("pack %s: %w", root, err)
	}
	p.report()
	return p.summary, nil
}

// report tells that the work is done.
func (p *packer) report() {
	copied := ""
	if p.summary.Reused > 0 {
		copied = fmt.Sprintf(", %d of them as in the earlier image", p.summary.Reused)
	}
	p.o.Events.Done(stage, "%d bytes from %d%s", p.summary.Size, p.summary.InputBytes, copied)
}

// write does all of Write. If checked is set, what it returns can check the image.
func write(ctx context.Context, root string, out *os.File, o WriteOptions, checked bool) (*packer, error) {
	spec, err := o.complete()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(out.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: out.Name(), Err: err}
	}
	if err := out.Truncate(0); err != nil {
		return nil, err
	}
	t, err := scan(ctx, filepath.Clean(root), &o, stampOf(&st))
	if err != nil {
		return nil, err
	}
	p := newPacker(t, newOutput(out), spec, o, checked)
	if o.Base != "" {
		if p.base, err = openBase(ctx, o.Base, spec, o.Workers); err != nil {
			o.Events.Warn(stage, "the base is not used: %v", err)
		}
		defer p.base.close()
	}
	if err := p.writeImage(ctx); err != nil {
		return nil, explainFull(err)
	}
	return p, nil
}

// complete sets what the caller left unset, and checks the rest.
func (o *WriteOptions) complete() (encoderSpec, error) {
	if o.BlockSize == 0 {
		o.BlockSize = defaultBlockSize
	}
	if !validBlockSize(o.BlockSize) {
		return encoderSpec{}, fault.New(fault.Usage, "block size %d is not a power of two from 4096 to 1048576", o.BlockSize)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0) + 1 // as each waits now and then
	}
	if o.Time.IsZero() {
		o.Time = time.Unix(0, 0)
	}
	if o.ModTime.IsZero() {
		o.ModTime = o.Time
	}
	for _, t := range []time.Time{o.Time, o.ModTime} {
		if s := t.Unix(); s < 0 || s > math.MaxUint32 {
			return encoderSpec{}, fault.New(fault.Usage, "squashfs cannot hold the time %s", t.UTC().Format(time.RFC3339))
		}
	}
	return newEncoderSpec(o.Codec, o.Level, o.BlockSize)
}

func explainFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.WithHint(err, "the file system of the image is full: free some space or write to another one")
	}
	return err
}

// fileDigest hashes the file as it is now.
func fileDigest(ctx context.Context, r io.ReaderAt, size int64) (digest.Digest, error) {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for off := int64(0); off < size; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if n == 0 && err != nil {
			return "", fmt.Errorf("read image back: %w", err)
		}
		h.Write(buf[:n])
		off += int64(n)
	}
	return digest.NewDigest(digest.SHA256, h), nil
}
