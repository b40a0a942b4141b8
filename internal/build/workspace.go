package build

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

// DefaultRoot is where builds happen unless told otherwise: memory.
const DefaultRoot = "/dev/shm"

// workspace is the private directory of one build. Its life is a lock on a file
// beside it, which the kernel gives up when the process ends in whatever way:
//
//	<root>/uenv-ci-<uid>/<job>.lock
//	<root>/uenv-ci-<uid>/<job>/
//
// The lock is there before the directory and goes after it, so a directory whose
// lock is free belongs to nobody.
type workspace struct {
	Dir    string
	parent *os.Root
	lock   *os.File
	job    string
	stuck  error // why something of dead builds could not be removed; nil if all was
}

const lockSuffix = ".lock"

// openWorkspace sweeps what dead builds left behind and makes a new workspace.
// Callers end it with close.
func openWorkspace(root, name string) (w *workspace, swept []string, err error) {
	parent, err := privateDir(filepath.Join(root, "uenv-ci-"+strconv.Itoa(os.Getuid())))
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			parent.Close()
		}
	}()
	swept, stuck, err := sweep(parent)
	if err != nil {
		return nil, nil, err
	}
	w = &workspace{parent: parent, stuck: stuck, job: name + "-" + strings.ToLower(rand.Text()[:8])}
	w.Dir = filepath.Join(parent.Name(), w.job)
	if w.lock, err = lockNew(parent, w.job+lockSuffix); err != nil {
		return nil, swept, fmt.Errorf("lock %s: %w", w.Dir, err)
	}
	if err = parent.Mkdir(w.job, 0o700); err != nil {
		return nil, swept, errors.Join(err, w.unlock())
	}
	return w, swept, nil
}

// privateDir opens a directory that only we can use, and makes it if need be.
func privateDir(dir string) (*os.Root, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.WithHint(fmt.Errorf("make the build root: %w", err), "choose another one with --build-root")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the build root: %w", err)
	}
	// A link would have been followed, so ask both ways.
	info, err := root.Stat(".")
	link, lerr := os.Lstat(dir)
	if err = errors.Join(err, lerr); err == nil {
		err = checkPrivate(dir, info, link)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

func checkPrivate(dir string, info, link fs.FileInfo) error {
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !os.SameFile(info, link):
		return fault.New(fault.Refused, "the build root %s is a link", dir)
	case int(owner) != os.Getuid():
		return fault.New(fault.Refused, "the build root %s belongs to user %d", dir, owner)
	case info.Mode().Perm()&0o077 != 0:
		return fault.WithHint(fault.New(fault.Refused, "the build root %s is open to others (mode %04o)", dir, info.Mode().Perm()),
			"chmod 700 %s, if nobody else put anything there", dir)
	}
	return nil
}

// lockNew makes and locks a file that a sweep of another process may take for
// abandoned until it is locked.
func lockNew(parent *os.Root, name string) (*os.File, error) {
	for {
		f, err := parent.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, err
		}
		if isCurrent(parent, name, f) {
			return f, nil
		}
		f.Close()
	}
}

// isCurrent tells whether a name still stands for an open file.
func isCurrent(parent *os.Root, name string, f *os.File) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := parent.Lstat(name)
	return err == nil && os.SameFile(opened, now)
}

// close removes the workspace with all that is in it. It may be called twice.
func (w *workspace) close() error {
	if w.lock == nil {
		return nil
	}
	err := removeJob(w.parent, w.job)
	if err == nil {
		err = w.unlock()
	} else {
		err = errors.Join(err, w.lock.Close()) // its file stays, for the next sweep
	}
	err = errors.Join(err, w.parent.Close())
	w.lock = nil
	return err
}

// keepSuffix is that of the file that says until when a workspace without an owner
// is kept. It is gone with the workspace, by the first sweep after that time.
const keepSuffix = ".keep"

// keep gives up a workspace without removing it.
func (w *workspace) keep(until time.Time) error {
	err := w.parent.WriteFile(w.job+keepSuffix, []byte(until.UTC().Format(time.RFC3339)), 0o600)
	if err == nil {
		err = unlinkMount(w.parent, w.job)
	}
	if err != nil {
		return fmt.Errorf("keep the build directory: %w", err)
	}
	err = errors.Join(w.lock.Close(), w.parent.Close())
	w.lock = nil
	return err
}

// isKept tells whether a workspace without an owner is not to be removed yet.
func isKept(parent *os.Root, job string) bool {
	text, err := parent.ReadFile(job + keepSuffix)
	if err != nil {
		return false
	}
	until, err := time.Parse(time.RFC3339, string(text))
	return err == nil && time.Now().Before(until)
}

func (w *workspace) unlock() error {
	return errors.Join(w.parent.Remove(w.job+lockSuffix), w.lock.Close())
}

// sweep removes the workspaces whose owners are dead. One that cannot be removed, as
// something may be mounted in it, keeps no build from beginning.
func sweep(parent *os.Root) (swept []string, stuck, err error) {
	entries, err := fs.ReadDir(parent.FS(), ".")
	if err != nil {
		return nil, nil, fmt.Errorf("read the build root: %w", err)
	}
	for _, e := range entries {
		job, ok := strings.CutSuffix(e.Name(), lockSuffix)
		if !ok {
			continue
		}
		gone, err := sweepJob(parent, job)
		if err != nil {
			stuck = errors.Join(stuck, fmt.Errorf("remove what a dead build left at %s: %w", filepath.Join(parent.Name(), job), err))
		}
		if gone {
			swept = append(swept, job)
		}
	}
	return swept, stuck, nil
}

func sweepJob(parent *os.Root, job string) (gone bool, err error) {
	name := job + lockSuffix
	f, err := parent.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil // its owner lives
		}
		return false, err
	}
	if !isCurrent(parent, name, f) || isKept(parent, job) {
		return false, nil
	}
	if err := removeJob(parent, job); err != nil {
		return false, err
	}
	return true, parent.Remove(name)
}

// removeJob removes the directory of a build and the link to it that an
// unsandboxed build has at its mount point.
func removeJob(parent *os.Root, job string) error {
	if err := parent.Remove(job + keepSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := unlinkMount(parent, job); err != nil {
		return err
	}
	if parent.RemoveAll(job) == nil {
		return nil
	}
	// Directories without write permission keep an ordinary user from removing
	// what is in them.
	fs.WalkDir(parent.FS(), job, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			parent.Chmod(path, 0o700)
		}
		return nil
	})
	return parent.RemoveAll(job)
}

// mountRecord is the file in a workspace that holds its mountLink.
const mountRecord = "mount.json"

// mountLink is the link at the mount point of a build without a sandbox.
type mountLink struct {
	Path      string
	Directory bool // there was an empty directory
}

// linkMount makes the mount point a link to the store, for builds without a sandbox.
// The files are still in the workspace and are removed with it. An empty directory at
// the mount point is restored at the end.
func (w *workspace) linkMount(mount, store string) error {
	record := mountLink{Path: mount}
	err := unix.Rmdir(mount) // never a file or link of somebody's
	switch {
	case err == nil:
		record.Directory = true
	case !errors.Is(err, fs.ErrNotExist):
		return errUnusableMount(err)
	}
	data, err := json.Marshal(record)
	if err == nil {
		err = w.parent.WriteFile(filepath.Join(w.job, mountRecord), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("record the mount point: %w", err)
	}
	if err := os.Symlink(store, mount); err != nil {
		return errUnusableMount(err)
	}
	return nil
}

func errUnusableMount(err error) error {
	return fault.WithHint(
		fault.New(fault.Refused, "without a sandbox the mount point must be an empty or missing directory that can be replaced by a link: %w", err),
		"install bubblewrap, or choose another path with --mount")
}

// unlinkMount removes the link that linkMount made, if it still is that.
func unlinkMount(parent *os.Root, job string) error {
	data, err := parent.ReadFile(filepath.Join(job, mountRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var mount mountLink
	if err := json.Unmarshal(data, &mount); err != nil {
		return nil // killed while it was written, so before the link was made
	}
	to, err := os.Readlink(mount.Path)
	if err != nil || !strings.HasPrefix(to, filepath.Join(parent.Name(), job)+"/") {
		return nil // not ours any more
	}
	err = os.Remove(mount.Path)
	if err == nil && mount.Directory {
		err = os.Mkdir(mount.Path, 0o755)
	}
	return err
}
