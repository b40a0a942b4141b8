package build

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

// The room a build needs if nothing is known about it, in bytes.
const (
	spackSize  = 2 << 30
	scriptSize = 16 << 20
)

// checkCapacity returns an error if a directory has no room for size bytes. In
// memory that is limited by the file system, by the machine and by the cgroup.
func checkCapacity(dir string, size int64) error {
	free, where, err := available(dir)
	if err != nil {
		return fmt.Errorf("find out how much room there is for the build: %w", err)
	}
	if free >= size {
		return nil
	}
	return fault.WithHint(
		fault.New(fault.Failure, "the build needs about %s in %s, and %s has %s left", mib(size), dir, where, mib(free)),
		"choose another place with --build-root")
}

func mib(n int64) string { return strconv.FormatInt(max(n, 0)>>20, 10) + " MiB" }

// available returns the bytes that can be written to a directory, and what limits them.
func available(dir string) (free int64, where string, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, "", fmt.Errorf("statfs %s: %w", dir, err)
	}
	free, where = int64(s.Bavail)*s.Bsize, "its file system"
	if s.Type != unix.TMPFS_MAGIC {
		return free, where, nil
	}
	if memory, ok := memAvailable(); ok && memory < free {
		free, where = memory, "the machine's memory"
	}
	if memory, ok := cgroupAvailable(); ok && memory < free {
		free, where = memory, "the memory limit of this job (cgroup)"
	}
	return free, where, nil
}

func memAvailable() (int64, bool) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	return field(data, "MemAvailable:", 1024)
}

// cgroupAvailable returns what the cgroups of this process (version 2) still
// allow: the least of its own and those above. File pages can be given up.
func cgroupAvailable() (least int64, ok bool) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	const top = "/sys/fs/cgroup"
	_, own, _ := strings.Cut(string(data), "0::")
	own, _, _ = strings.Cut(own, "\n")
	for dir := filepath.Join(top, own); strings.HasPrefix(dir, top); dir = filepath.Dir(dir) {
		limit, hasLimit := number(dir + "/memory.max")
		used, hasUsed := number(dir + "/memory.current")
		if !hasLimit || !hasUsed {
			continue
		}
		stat, err := os.ReadFile(dir + "/memory.stat")
		if err != nil {
			continue
		}
		pages, _ := field(stat, "inactive_file ", 1)
		if free := limit - used + pages; !ok || free < least {
			least, ok = free, true
		}
	}
	return least, ok
}

func number(file string) (int64, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// field returns the number after a key of a file such as /proc/meminfo, in bytes.
func field(data []byte, key string, unit int64) (int64, bool) {
	for line := range bytes.Lines(data) {
		rest, ok := bytes.CutPrefix(line, []byte(key))
		if !ok {
			continue
		}
		words := strings.Fields(string(rest))
		if len(words) == 0 {
			return 0, false
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		return n * unit, err == nil
	}
	return 0, false
}
