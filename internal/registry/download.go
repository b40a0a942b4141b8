package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// DownloadOptions say how a blob is fetched into a file. The zero value adapts
// itself to the connection.
type DownloadOptions struct {
	// Connections is how many parts of the blob are fetched at a time; 0 starts
	// with one and adds more, up to maxConnections, while that makes it faster.
	Connections int
	// Limit bounds the rate, in bytes per second; 0 does not.
	Limit int64
	// Stage names the events; "" is "download".
	Stage string
	// Events receives the progress; nil is the registry's sink.
	Events event.Sink
	// Create opens the partial file for reading and writing, and creates it if it
	// is not there, for example with a stripe layout; nil does the plain thing.
	Create func(path string) (*os.File, error)
}

// maxConnections is how many connections one download uses at most.
const maxConnections = 8

// maxDownload bounds a blob, in bytes, and with it what a hostile manifest makes
// us allocate.
const maxDownload = 4 << 40

// Names of what a download keeps beside the file until it is complete.
const (
	PartialSuffix = ".partial"
	JournalSuffix = ".journal"
)

// Download fetches a blob into a new file. The content is kept in path.partial,
// and what of it is right in path.journal, so that any later call goes on where
// this one was interrupted, by a crash too. Several parts may be fetched at a
// time. The file appears under its name only after the digest of the whole was
// right. Whoever else downloads to the same path meanwhile waits and shows the
// progress. A file of the right size that is there already is left alone.
func (p *Repository) Download(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions) error {
	if err := validDescriptor(d); err != nil {
		return err
	}
	if d.Size > maxDownload {
		return fault.New(fault.Invalid, "download %s of %s: its %d bytes are more than the %d that are possible", d.Digest, p, d.Size, int64(maxDownload))
	}
	if err := p.download(ctx, d, path, o); err != nil {
		return fmt.Errorf("download %s of %s: %w", d.Digest, p, withSpaceHint(err))
	}
	return nil
}

func (p *Repository) download(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions) error {
	t, err := p.prepare(ctx, d, path, o)
	if err != nil || t == nil {
		return err
	}
	defer t.close()
	return t.conclude(t.run(ctx), path)
}

// prepare locks the files of a download, reserves space, and reads what earlier
// attempts have left. It returns nil if the whole file is there.
func (p *Repository) prepare(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions) (*transfer, error) {
	events := o.Events
	if events == nil {
		events = p.registry.events
	}
	m := &meter{events: events, stage: cmp.Or(o.Stage, "download"), total: d.Size}
	partial, err := claim(ctx, d, path, o, m)
	if err != nil || partial == nil {
		return nil, err
	}
	journal, claims, err := openJournal(path+JournalSuffix, d)
	if err != nil {
		partial.Close()
		return nil, err
	}
	t := newTransfer(p, d, partial, journal, claims, o, m)
	if err := reserve(ctx, partial, d.Size); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *transfer) close() {
	t.journal.Close()
	t.file.Close()
}

// conclude gives the file its name if err is nil. If everything was fetched but is not
// the blob, nobody knows which part is wrong: the next attempt starts from scratch.
func (t *transfer) conclude(err error, path string) error {
	switch {
	case err == nil:
		return publish(t.file, path)
	case errors.Is(err, errContent) && t.complete():
		return errors.Join(err, os.Remove(path+JournalSuffix), os.Remove(path+PartialSuffix))
	}
	return err
}

// claim opens and locks the partial file. It returns nil if the whole file is
// there, perhaps because another process finished it while this one waited.
func claim(ctx context.Context, d ocispec.Descriptor, path string, o DownloadOptions, m *meter) (*os.File, error) {
	create := o.Create
	if create == nil {
		create = openPlain
	}
	for {
		if there, err := complete(path, d); there || err != nil {
			return nil, err
		}
		f, err := create(path + PartialSuffix)
		if err != nil {
			return nil, err
		}
		watch := func() { m.set(journalled(path+JournalSuffix, d)) }
		if _, err := lockFileWatching(ctx, f, watch); err != nil {
			return nil, err
		}
		// Whoever held the lock may have finished: then this file has another
		// name now, or none.
		held, err1 := f.Stat()
		named, err2 := os.Stat(path + PartialSuffix)
		if err1 == nil && err2 == nil && os.SameFile(held, named) {
			return f, nil
		}
		f.Close()
		if err := cmp.Or(err1, ignore(err2, fs.ErrNotExist)); err != nil {
			return nil, err
		}
	}
}

// openPlain opens or creates a file that must not be a link: the directory may be
// shared with others.
func openPlain(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o666)
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

// complete tells whether the file is there. Only verified content gets its name,
// so the size is enough; another size is not for us to overwrite.
func complete(path string, d ocispec.Descriptor) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() || info.Size() != d.Size {
		return false, fault.New(fault.Failure, "%s is there, and it is something else: %w", path, fs.ErrExist)
	}
	return true, nil
}

// reserve gives a partial file its size, and its space.
func reserve(ctx context.Context, f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("allocate %d bytes: %w", size, err)
		}
	}
	if reservesByPage(f, size) {
		return nil
	}
	return allocate(ctx, f, size)
}

// allocateStep is how much space is reserved at a time, in bytes, so that it can be
// interrupted where that takes long.
const allocateStep = 64 << 20

// reservesByPage tells whether reserving space is as much work as writing, for every
// page, and spares nobody a surprise since it is known that there is enough: in memory,
// where there are no quotas.
func reservesByPage(f *os.File, size int64) bool {
	var fs unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &fs)
	return err == nil && fs.Type == unix.TMPFS_MAGIC && fs.Bavail > uint64(size)/uint64(fs.Bsize)
}

// allocate reserves the space, so that a full disk shows before the transfer.
func allocate(ctx context.Context, f *os.File, size int64) error {
	for at := int64(0); at < size && ctx.Err() == nil; {
		err := syscall.Fallocate(int(f.Fd()), 0, at, min(allocateStep, size-at))
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
			return fmt.Errorf("allocate %d bytes: %w", size, err)
		case err != nil:
			return nil // not every file system can reserve
		default:
			at += allocateStep
		}
	}
	return nil
}

// publish gives a verified file its name.
func publish(partial *os.File, path string) error {
	if err := partial.Sync(); err != nil {
		return err
	}
	if err := os.Rename(path+PartialSuffix, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := ignore(dir.Sync(), syscall.EINVAL); err != nil {
		return err
	}
	return ignore(os.Remove(path+JournalSuffix), fs.ErrNotExist)
}
