package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"uenv-ci.dev/internal/fault"
)

// lockFile takes an exclusive lock on an open file and waits for it as long as
// ctx lives. The lock ends with unlock or with the process, whichever is first.
func lockFile(ctx context.Context, f *os.File) (unlock func(), err error) {
	return lockFileWatching(ctx, f, func() {})
}

// lockFileWatching is lockFile and calls watch now and then while it waits.
func lockFileWatching(ctx context.Context, f *os.File, watch func()) (unlock func(), err error) {
	wait := time.Millisecond
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		watch()
		if err := pause(ctx, wait/2+rand.N(wait)); err != nil {
			f.Close()
			return nil, fmt.Errorf("wait for lock %s: %w", f.Name(), err)
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ended(ctx)
	case <-timer.C:
		return nil
	}
}

// ended returns why ctx ended. A deadline is what a slow network runs into.
func ended(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Network, "it took too long: %w", err)
	}
	return err
}

// userLock takes a lock of the given name that all processes of this user on
// this host see.
func userLock(ctx context.Context, name string) (unlock func(), err error) {
	dir, err := lockDir()
	if err != nil {
		return nil, fmt.Errorf("find a directory for locks: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return lockFile(ctx, f)
}

// lockRoot is the same for all processes of a host, whatever their environment.
const lockRoot = "/tmp"

// lockDir returns a directory that only this user can write to.
func lockDir() (string, error) {
	dir := filepath.Join(lockRoot, "uenv-ci-locks-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fault.New(fault.Failure, "%s is not a directory of this user alone", dir)
	}
	return dir, nil
}
