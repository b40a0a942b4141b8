package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// A temporary file is locked as long as its writer lives, so one whose lock is free
// has been left by a writer that was killed. Where files cannot be locked nothing
// is swept.

// prefix is what the names of temporary files for a path begin with. A number follows.
func prefix(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// createLocked makes a temporary file. Until it is locked another writer may take
// it for one that was left, and remove it.
func createLocked(path string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(filepath.Dir(path), prefix(path)+"*")
		if err != nil {
			return nil, err
		}
		if flock(f, syscall.LOCK_EX) != nil || isStill(f) {
			return f, nil
		}
		f.Close()
	}
}

// isStill tells whether the name of an open file still stands for it.
func isStill(f *os.File) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(opened, now)
}

var digits = regexp.MustCompile(`^[0-9]+$`)

// sweep removes what dead writers of a path have left. It is no error if it cannot.
func sweep(path string) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, prefix(path)); ok && digits.MatchString(rest) {
			sweepFile(filepath.Join(filepath.Dir(path), name))
		}
	}
}

func sweepFile(name string) {
	f, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	if flock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil && isStill(f) {
		os.Remove(name)
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
