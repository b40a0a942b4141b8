package localrepo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

const (
	firstPoll = 20 * time.Millisecond
	lastPoll  = 100 * time.Millisecond
	ownerPoll = 80 * time.Millisecond // time that an owner gets to say who it is
)

// Lock is the exclusive right to change one image's files, among all processes
// of this program and the uenv client's pulls.
type Lock struct {
	digest digest.Digest

	mu       sync.Mutex
	file     *os.File
	owner    owner
	reported time.Time
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Truncate(0) // what it says would mislead who waits for the next owner
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
			l := &Lock{digest: d, file: file}
			l.claim()
			return l, nil
		}
		file.Close()
	}
}

// openLock opens the lock file, with the repository's mode if it makes it. It is
// written to: in a shared repository a link could lead to any file of ours, and a
// pipe would never say who has the lock.
func (r *Repo) openLock(d digest.Digest) (*os.File, error) {
	path := r.Paths(d).Lock
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, r.fileMode)
	if errors.Is(err, os.ErrExist) {
		return openRegular(path, os.O_RDWR|os.O_CREATE, r.fileMode)
	}
	if err == nil {
		err = file.Chmod(r.fileMode)
	}
	return file, err
}

// openRegular opens a file that is neither a link nor a pipe.
func openRegular(path string, flag int, mode os.FileMode) (*os.File, error) {
	file, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, mode)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.New(fault.Refused, "%s is not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (r *Repo) flock(ctx context.Context, file *os.File, d digest.Digest, wait bool) (bool, error) {
	told := false
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		if got, err := tryFlock(file); got || err != nil || !wait {
			return got, err
		}
		owner := ownerOf(file)
		if !told && (owner.known() || pause > ownerPoll) { // who has just taken it says so at once
			told = true
			r.events.Info("repository", "waiting for %s that is working on image %s", owner, label.ID(d))
		}
		owner.report(r.events)
		select {
		case <-ctx.Done():
			return false, fault.Wrap(fault.Interrupted, context.Cause(ctx), "wait for another process that is working on the image")
		case <-time.After(pause):
		}
	}
}

// tryFlock takes the lock of an open file if nobody has it.
func tryFlock(file *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, fmt.Errorf("flock: %w", err)
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
