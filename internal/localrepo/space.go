package localrepo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// longUnused is the age from which on images are named to those who lack space.
const longUnused = 90 * 24 * time.Hour

// Space is what may still be written, in bytes and in files; -1 if unknown.
type Space struct {
	Free       int64 `json:"free"`        // of the file system, for us
	FreeFiles  int64 `json:"free_files"`  // likewise
	Quota      int64 `json:"quota"`       // left of the user's and the group's; -1 also if there is none
	QuotaFiles int64 `json:"quota_files"` // likewise
}

// Need is what is about to be written.
type Need struct {
	Bytes int64
	Files int64
}

// CheckSpace returns an error if the repository has no room for what is needed,
// with a hint on what could be freed. A quota that the system does not tell of,
// as on most network file systems, shows when the space is reserved.
func (r *Repo) CheckSpace(ctx context.Context, n Need) error {
	s := spaceOf(r.dir)
	var lack string
	switch {
	case s.Quota >= 0 && s.Quota < n.Bytes:
		lack = fmt.Sprintf("%s are needed and your quota leaves %s", event.FormatBytes(n.Bytes), event.FormatBytes(s.Quota))
	case s.Free >= 0 && s.Free < n.Bytes:
		lack = fmt.Sprintf("%s are needed and %s are free", event.FormatBytes(n.Bytes), event.FormatBytes(s.Free))
	case s.QuotaFiles >= 0 && s.QuotaFiles < n.Files:
		lack = fmt.Sprintf("%d files are needed and your quota leaves %d", n.Files, s.QuotaFiles)
	case s.FreeFiles >= 0 && s.FreeFiles < n.Files:
		lack = fmt.Sprintf("%d files are needed and the file system has room for %d", n.Files, s.FreeFiles)
	default:
		return nil
	}
	err := fault.New(fault.Failure, "no room in the local repository %s: %s", r.dir, lack)
	return fault.WithHint(err, "%s", r.spaceHint(ctx))
}

// Explain adds to an error that tells of a full file system or quota what could be
// freed. Other errors stay as they are.
func (r *Repo) Explain(ctx context.Context, err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return fault.WithHint(err, "%s", r.spaceHint(context.WithoutCancel(ctx)))
}

// spaceHint says what could be freed.
func (r *Repo) spaceHint(ctx context.Context) string {
	var tips []string
	add := func(o PruneOptions, command string) {
		left, err := r.Prune(ctx, o)
		if err != nil {
			return
		}
		var bytes int64
		var labels []label.Label
		for _, l := range left {
			bytes += l.Bytes
			labels = append(labels, l.Labels...)
		}
		if bytes == 0 || o.Unused > 0 && len(labels) == 0 {
			return
		}
		tip := fmt.Sprintf("'uenv-ci %s' frees %s", command, event.FormatBytes(bytes))
		if len(labels) > 0 {
			tip += " (" + label.Few(labels, ", ") + ")"
		}
		tips = append(tips, tip)
	}
	add(PruneOptions{Dry: true}, "repo prune")
	add(PruneOptions{Dry: true, Unused: longUnused}, "repo prune --unused 90d")
	if len(tips) == 0 {
		return "'uenv-ci repo du' shows what the images take, 'uenv-ci rm' removes one; --repo names another repository"
	}
	return strings.Join(tips, "; ")
}

func spaceOf(dir string) Space {
	s := Space{Free: -1, FreeFiles: -1, Quota: -1, QuotaFiles: -1}
	var stat unix.Statfs_t
	if unix.Statfs(dir, &stat) == nil {
		s.Free = int64(stat.Bavail) * stat.Bsize
		if stat.Files > 0 { // some file systems have no fixed number
			s.FreeFiles = int64(stat.Ffree)
		}
	}
	file, err := os.Open(dir)
	if err != nil {
		return s
	}
	defer file.Close()
	group := os.Getegid()
	var own unix.Stat_t
	if unix.Fstat(int(file.Fd()), &own) == nil && own.Mode&unix.S_ISGID != 0 {
		group = int(own.Gid)
	}
	for kind, id := range map[int]int{userQuota: os.Geteuid(), groupQuota: group} {
		if q, err := readQuota(int(file.Fd()), kind, id); err == nil {
			s.Quota = lesser(s.Quota, q.bytesLeft())
			s.QuotaFiles = lesser(s.QuotaFiles, q.filesLeft())
		}
	}
	return s
}

// lesser is the smaller of two numbers of which negative ones are unknown.
func lesser(a, b int64) int64 {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

// The kernel's interface to quotas: linux/quota.h, quotactl_fd(2).
const (
	userQuota  = 0
	groupQuota = 1

	getQuota       = 0x800007 // Q_GETQUOTA
	quotaBlock     = 1024     // QIF_DQBLKSIZE
	validBlocks    = 1 | 2    // QIF_BLIMITS, QIF_SPACE
	validInodes    = 4 | 8    // QIF_ILIMITS, QIF_INODES
	quotaTypeShift = 8        // SUBCMDSHIFT
)

// quota is struct if_dqblk.
type quota struct {
	bytesHard, bytesSoft uint64 // in blocks
	bytesUsed            uint64
	filesHard, filesSoft uint64
	filesUsed            uint64
	bytesTime, filesTime uint64
	valid                uint32
	_                    uint32
}

// readQuota asks for one's own quota, which needs no privilege. File systems
// without quotas, and those that keep them elsewhere, return an error.
func readQuota(fd, kind, id int) (quota, error) {
	var q quota
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(getQuota<<quotaTypeShift|kind), uintptr(id),
		uintptr(unsafe.Pointer(&q)), 0, 0)
	if errno != 0 {
		return q, errors.New(errno.Error())
	}
	return q, nil
}

// bytesLeft is what may be written below the hard limit; -1 without one.
func (q quota) bytesLeft() int64 {
	if q.valid&validBlocks != validBlocks || q.bytesHard == 0 {
		return -1
	}
	return max(0, int64(q.bytesHard)*quotaBlock-int64(q.bytesUsed))
}

func (q quota) filesLeft() int64 {
	if q.valid&validInodes != validInodes || q.filesHard == 0 {
		return -1
	}
	return max(0, int64(q.filesHard)-int64(q.filesUsed))
}
