package localrepo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// diskUsage adds up the sizes of the regular files at or below path.
func diskUsage(path string) int64 {
	var total int64
	filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// times returns when a file was last read, and last changed in any way.
func times(path string) (read, changed time.Time, err error) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return time.Time{}, time.Time{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	changed = time.Unix(stat.Ctim.Unix())
	if modified := time.Unix(stat.Mtim.Unix()); modified.After(changed) {
		changed = modified
	}
	return time.Unix(stat.Atim.Unix()), changed, nil
}

func lastChange(path string) (time.Time, error) {
	_, changed, err := times(path)
	return changed, err
}

// lastUsed is the newest of what tells that an image was used: starting it reads
// the image and, in both programs, its env.json.
func (r *Repo) lastUsed(d digest.Digest) time.Time {
	paths := r.Paths(d)
	var newest time.Time
	for _, path := range []string{paths.Image, filepath.Join(paths.Meta, "env.json")} {
		read, _, err := times(path)
		if err == nil && read.After(newest) {
			newest = read
		}
	}
	return newest.UTC()
}

// keepsAccessTimes tells whether the file system notes when files are read.
func keepsAccessTimes(dir string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(dir, &stat) == nil && stat.Flags&unix.MS_NOATIME == 0
}

// openQuietly opens a file for reading so that this does not count as its use,
// where we may.
func openQuietly(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, fs.ErrPermission) {
		return os.Open(path)
	}
	return file, err
}

// writableBy tells whether we may write into a repository and its database.
func writableBy(dir string) bool {
	return unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, databaseName), unix.W_OK) == nil
}
