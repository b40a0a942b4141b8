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
	"uenv-ci.dev/internal/pathcheck"
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

const ownFileSystem = "its file system"

// available returns the bytes that can be written to a directory, and what limits them.
func available(dir string) (free int64, where string, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, "", fmt.Errorf("statfs %s: %w", dir, err)
	}
	free, where = int64(s.Bavail)*s.Bsize, ownFileSystem
	if s.Type != unix.TMPFS_MAGIC {
		return free, where, nil
	}
	if memory, what, ok := memoryLeft(); ok && memory < free {
		free, where = memory, what
	}
	return free, where, nil
}

// inMemory tells whether what is written to a directory takes memory.
func inMemory(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.TMPFS_MAGIC
}

// memoryLeft returns how many bytes of memory are available, and what limits them.
func memoryLeft() (free int64, where string, ok bool) {
	free, ok = meminfo("MemAvailable:")
	where = "the machine's memory"
	if job, limited := cgroupAvailable(); limited && (!ok || job < free) {
		free, where, ok = job, "the memory limit of this job (cgroup)", true
	}
	return free, where, ok
}

// meminfo returns a value of /proc/meminfo, in bytes.
func meminfo(key string) (int64, bool) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	return field(data, key, 1024)
}

// cgroupTree is where a version of cgroups has its files, and how they are called.
type cgroupTree struct {
	entry             string // of /proc/self/cgroup, before the path
	top               string
	limit, used, idle string
}

var cgroupTrees = []cgroupTree{
	{"0::", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "},
	{":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "},
}

// cgroupAvailable returns what the cgroups of this process still allow: the least
// of its own and those above.
func cgroupAvailable() (least int64, ok bool) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for _, tree := range cgroupTrees {
		if _, own, found := strings.Cut(string(data), tree.entry); found {
			own, _, _ = strings.Cut(own, "\n")
			if free, limited := tree.available(own); limited && (!ok || free < least) {
				least, ok = free, true
			}
		}
	}
	return least, ok
}

// available returns what a cgroup and those above it still allow. File pages can
// be given up.
func (t cgroupTree) available(own string) (least int64, ok bool) {
	for dir := filepath.Join(t.top, own); pathcheck.Within(dir, t.top); dir = filepath.Dir(dir) {
		limit, hasLimit := number(filepath.Join(dir, t.limit))
		used, hasUsed := number(filepath.Join(dir, t.used))
		stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
		if !hasLimit || !hasUsed || err != nil {
			continue
		}
		pages, _ := field(stat, t.idle, 1)
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
