package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

const (
	lockName    = "lock"
	pointsName  = "points"
	contentName = "content"
)

// workDir is the private directory of one mount. Its lock is held as long as we
// live; the next run removes one whose lock is free.
//
//	<temporary>/uenv-ci-<uid>/mounts/lock            held while directories are made or swept
//	<temporary>/uenv-ci-<uid>/mounts/<random>/lock   held by the mount's owner
//	…/points                                         what was made on the host for it, a path a line
//	…/content                                        where the content is
type workDir struct {
	dir  string
	lock *os.File
}

// newWorkDir sweeps what killed runs have left and makes a new directory.
func newWorkDir(base string, events event.Sink) (*workDir, error) {
	if base == "" {
		base = os.TempDir()
	}
	parent := filepath.Join(base, fmt.Sprintf("uenv-ci-%d", os.Geteuid()), "mounts")
	if err := errors.Join(private(filepath.Dir(parent)), private(parent)); err != nil {
		return nil, err
	}
	// Without it a sweep could take a directory for dead that is being made.
	all, err := lockFile(filepath.Join(parent, lockName), os.O_CREATE, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	sweep(parent, events)
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return nil, err
	}
	w := &workDir{dir: dir}
	if w.lock, err = lockFile(filepath.Join(dir, lockName), os.O_CREATE, unix.LOCK_EX); err == nil {
		err = os.Mkdir(w.content(), 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, w.remove())
	}
	return w, nil
}

func (w *workDir) content() string { return filepath.Join(w.dir, contentName) }

// private makes a directory that nobody else can enter, or checks one that is
// there: in a shared temporary directory somebody else may have made it.
func private(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fault.New(fault.Failure, "%s is not a directory of our own with mode 0700", dir)
	}
	return nil
}

// lockFile opens a file and locks it. The lock ends with the process.
func lockFile(path string, flag, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

// sweep removes the directories whose owners are dead.
func sweep(parent string, events event.Sink) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		lock, err := lockFile(filepath.Join(dir, lockName), 0, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, fs.ErrNotExist) {
			os.Remove(dir) // killed when it was new, or nearly gone
		}
		if err != nil {
			continue
		}
		if err := (&workDir{dir, lock}).remove(); err != nil {
			events.Warn(stage, "what a killed run left in %s could not be removed: %v", dir, err)
			continue
		}
		events.Info(stage, "removed what a killed run left in %s", dir)
	}
}

// remove takes away the directory and what was made on the host for it.
func (w *workDir) remove() error {
	w.removePoints()
	err := removeTree(w.dir)
	if w.lock != nil {
		w.lock.Close()
		w.lock = nil
	}
	return err
}

// note records a path that is about to be made on the host, so that it goes even
// if we are killed.
func (w *workDir) note(path string) error {
	file, err := os.OpenFile(filepath.Join(w.dir, pointsName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, path)
	return errors.Join(err, file.Close())
}

// removePoints removes what was made on the host: empty directories, and links
// to our own content.
func (w *workDir) removePoints() {
	data, err := os.ReadFile(filepath.Join(w.dir, pointsName))
	if err != nil {
		return // nothing was made
	}
	lines := strings.Fields(string(data))
	for i := len(lines) - 1; i >= 0; i-- {
		info, err := os.Lstat(lines[i])
		if err != nil {
			continue
		}
		target, _ := os.Readlink(lines[i])
		if info.IsDir() || target == w.content() {
			os.Remove(lines[i]) // one that others have put something into stays
		}
	}
}

// makePoint makes the mount point on the host where it is missing and the
// sandbox could not show it otherwise: where it is in a directory into which
// the user writes, or if it is needed in any case.
func (w *workDir) makePoint(point string, needed bool) error {
	var missing []string
	parent := point
	for {
		if _, err := os.Stat(parent); err == nil {
			break
		}
		missing = append(missing, parent)
		parent = filepath.Dir(parent)
	}
	if !needed && (parent == "/" || unix.Access(parent, unix.W_OK) != nil) {
		return nil
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := w.note(missing[i]); err != nil {
			return err
		}
		if err := os.Mkdir(missing[i], 0o755); err != nil {
			return fmt.Errorf("without bubblewrap the mount point must be a directory that can be made: %w", err)
		}
	}
	return nil
}

// removeTree removes a tree in which directories may be read-only.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return root.Chmod(path, 0o700)
		}
		return nil
	})
	return errors.Join(err, os.RemoveAll(dir))
}
