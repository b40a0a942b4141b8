package localrepo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
)

const (
	firstPoll = 20 * time.Millisecond
	lastPoll  = 500 * time.Millisecond
)

// Lock is the exclusive right to change one image's files, among all processes
// of this program and the uenv client's pulls.
type Lock struct {
	digest digest.Digest
	file   *os.File
}

// Lock waits for the lock of an image, which need not exist. The end of the
// context ends the wait. A kill releases the lock.
func (r *Repo) Lock(ctx context.Context, d digest.Digest) (*Lock, error) {
	l, err := r.lock(ctx, d, true)
	if err != nil {
		return nil, explain(err, "lock image %s in %s", d, r.dir)
	}
	return l, nil
}

// TryLock takes the lock of an image if nobody else has it; otherwise the
// result is nil.
func (r *Repo) TryLock(ctx context.Context, d digest.Digest) (*Lock, error) {
	l, err := r.lock(ctx, d, false)
	if err != nil {
		return nil, explain(err, "lock image %s in %s", d, r.dir)
	}
	return l, nil
}

// Unlock releases the lock. It may be called again.
func (l *Lock) Unlock() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

func (r *Repo) lock(ctx context.Context, d digest.Digest, wait bool) (*Lock, error) {
	if err := errors.Join(checkDigest(d), r.writable()); err != nil {
		return nil, err
	}
	if err := r.mkImages(); err != nil {
		return nil, err
	}
	for {
		file, err := r.openLock(d)
		if err != nil {
			return nil, err
		}
		got, err := r.flock(ctx, file, d, wait)
		if err != nil || !got {
			file.Close()
			return nil, err
		}
		// Whoever had it may have removed the file, and another may already
		// hold a new one of the same name.
		if current(file) {
			return &Lock{digest: d, file: file}, nil
		}
		file.Close()
	}
}

// openLock opens the lock file, with the repository's mode if it makes it.
func (r *Repo) openLock(d digest.Digest) (*os.File, error) {
	path := r.Paths(d).Lock
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, r.fileMode)
	if errors.Is(err, os.ErrExist) {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE, r.fileMode)
	}
	if err == nil {
		err = file.Chmod(r.fileMode)
	}
	return file, err
}

func (r *Repo) flock(ctx context.Context, file *os.File, d digest.Digest, wait bool) (bool, error) {
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return false, fmt.Errorf("flock: %w", err)
		case !wait:
			return false, nil
		case pause == firstPoll:
			r.events.Info("repository", "waiting for another process that is working on image %s", ID(d))
		}
		select {
		case <-ctx.Done():
			return false, fault.Wrap(fault.Interrupted, context.Cause(ctx), "wait for another process that is working on the image")
		case <-time.After(pause):
		}
	}
}

// current tells whether the open file is the one that its path names.
func current(file *os.File) bool {
	here, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(file.Name())
	return err == nil && os.SameFile(here, there)
}
