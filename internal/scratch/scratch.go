// Package scratch makes temporary directories that go away in any case: with
// their owner, or if it is killed with the next run.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

const (
	lockName   = "lock"
	outerName  = "outside"
	filesName  = "files"
	stage      = "clean up"
	parentName = "scratch"
)

// Dir is a private directory. Its lock is held as long as we live; the next run
// removes one whose lock is free.
//
//	<temporary>/uenv-ci-<uid>/scratch/lock            held while directories are made or swept
//	<temporary>/uenv-ci-<uid>/scratch/<random>/lock   held by the directory's owner
//	…/outside                                         what was made elsewhere for it, a path a line
//	…/files                                           Path
type Dir struct {
	dir  string
	lock *os.File
}

// New sweeps what killed runs have left in base and makes a new directory there.
// With base "" it is the system's temporary directory.
func New(base string, events event.Sink) (*Dir, error) {
	d, err := create(base, events)
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	return d, nil
}

// NewShared is New for a base that other hosts have too. Locks may hold on one host only,
// so each host has a directory of its own for its directories.
func NewShared(base string, events event.Sink) (*Dir, error) {
	parent, err := SharedRoot(base)
	if err != nil {
		return nil, err
	}
	// All users of it could put a directory of theirs in the place of ours.
	if info, err := os.Stat(base); err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		err := fault.New(fault.Usage, "everybody can rename what is in %s", base)
		return nil, fault.WithHint(err, "'chmod +t' or 'chmod o-w' makes it safe")
	}
	d, err := createIn(parent, events)
	if err != nil {
		return nil, fmt.Errorf("make a directory in %s: %w", base, err)
	}
	return d, nil
}

// SharedRoot returns the directory in base that holds all that NewShared makes on this
// host.
func SharedRoot(base string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("the name of this host: %w", err)
	}
	base, err = filepath.Abs(base)
	if err != nil {
		return "", err
	}
	return Root(base) + "-" + filepath.Base(host), nil
}

func create(base string, events event.Sink) (*Dir, error) { return createIn(Root(base), events) }

func createIn(parent string, events event.Sink) (*Dir, error) {
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
	d := &Dir{dir: dir}
	if d.lock, err = lockFile(filepath.Join(dir, lockName), os.O_CREATE, unix.LOCK_EX); err == nil {
		err = os.Mkdir(d.Path(), 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, d.Remove())
	}
	return d, nil
}

// Root returns the directory in base that holds all of ours.
func Root(base string) string {
	if base == "" {
		base = os.TempDir()
	}
	return filepath.Join(base, "uenv-ci-"+strconv.Itoa(os.Geteuid()), parentName)
}

// Path returns where the owner's files go.
func (d *Dir) Path() string { return filepath.Join(d.dir, filesName) }

// Remove removes the directory and what was made elsewhere for it. It may be called
// more than once.
func (d *Dir) Remove() error {
	if d.dir == "" {
		return nil
	}
	d.removeOutside()
	err := removeTree(d.dir)
	if d.lock != nil {
		d.lock.Close()
	}
	*d = Dir{}
	return err
}

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
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flag, 0o600)
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
		if err := (&Dir{dir, lock}).Remove(); err != nil {
			events.Warn(stage, "leftovers of a killed run in %s could not be removed: %v", dir, err)
			continue
		}
		events.Info(stage, "removed leftovers of a killed run in %s", dir)
	}
}

// Note records an absolute path elsewhere that is about to be made for the
// directory's owner: an empty directory, or a link to what is in Path. It goes
// with the directory, even if we are killed.
func (d *Dir) Note(path string) error {
	file, err := os.OpenFile(filepath.Join(d.dir, outerName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, path)
	return errors.Join(err, file.Close())
}

func (d *Dir) removeOutside() {
	data, err := os.ReadFile(filepath.Join(d.dir, outerName))
	if err != nil {
		return // nothing was made
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		info, err := os.Lstat(lines[i])
		if err != nil {
			continue
		}
		target, _ := os.Readlink(lines[i])
		if info.IsDir() || target == d.Path() || strings.HasPrefix(target, d.Path()+"/") {
			os.Remove(lines[i]) // one that others have put something into stays
		}
	}
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
