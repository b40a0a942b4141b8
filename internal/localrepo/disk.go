package localrepo

import (
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// diskUsage adds up the sizes of the regular files below dir.
func diskUsage(dir string) int64 {
	var total int64
	filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// accessed returns when a file was last read, zero if it does not exist.
func accessed(path string) time.Time {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return time.Time{}
	}
	return time.Unix(stat.Atim.Unix()).UTC()
}

// writableBy tells whether we may write into a repository and its database.
func writableBy(dir string) bool {
	return unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, databaseName), unix.W_OK) == nil
}

// freeSpace returns the bytes that we may still write.
func freeSpace(dir string) int64 {
	var stat unix.Statfs_t
	if unix.Statfs(dir, &stat) != nil {
		return 0
	}
	return int64(stat.Bavail) * stat.Bsize
}
