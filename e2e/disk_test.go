package e2e

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// tmpfs DIR SIZE puts an empty file system of limited size at DIR; root only.
func cmdTmpfs(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "tmpfs DIR SIZE")
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// readonly DIR lets nobody write below DIR, not even root.
func cmdReadOnly(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "readonly DIR")
	dir := ts.MkAbs(args[0])
	if os.Geteuid() != 0 {
		ts.Check(chmodAll(dir, 0o222))
		ts.Defer(func() { _ = chmodAll(dir, 0) })
		return
	}
	ts.Check(unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	ts.Check(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
}

// The bytes of a database file on which SQLite's writers hold their locks, see
// "File Locking And Concurrency In SQLite Version 3".
const (
	sqliteLocksAt  = 0x40000000
	sqliteLocksLen = 512
)

// lockdb FILE locks an SQLite database as another writer would, till the script
// ends.
func cmdLockDB(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "lockdb FILE")
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	ts.Defer(func() { f.Close() })
	ts.Check(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{
		Type: unix.F_WRLCK, Whence: 0, Start: sqliteLocksAt, Len: sqliteLocksLen,
	}))
}

// chmodAll takes permissions from everything below dir; taking none gives the
// owner's back.
func chmodAll(dir string, without fs.FileMode) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() &^ without
		if without == 0 {
			mode |= 0o600
		}
		return os.Chmod(path, mode)
	})
}
