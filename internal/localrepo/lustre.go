package localrepo

import (
	"cmp"
	"context"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/proc"
)

// lustreMagic is LL_SUPER_MAGIC, which statfs gives on Lustre.
const lustreMagic = 0x0BD00BD0

// Striping says over how many storage targets of a Lustre file system an image is
// spread. The zero value is that of the uenv client: 32 targets, 4 MiB each turn.
type Striping struct {
	Count int   // 0 is 32; -1 is all
	Size  int64 // bytes, a multiple of 64 KiB; 0 is 4 MiB
	Off   bool  // leave it to the directory
}

func fsType(path string) int64 {
	var stat unix.Statfs_t
	if unix.Statfs(path, &stat) != nil {
		return 0
	}
	return int64(stat.Type)
}

func (r *Repo) onLustre() bool { return r.fsType(r.dir) == lustreMagic }

// Stripe lets the image that is about to be written to the stage be spread over
// many storage targets, where that is to be had. It must come before the first
// byte, and after small files, which would only be slower for it.
func (s *Stage) Stripe(ctx context.Context) {
	o := s.repo.stripes
	if o.Off || !s.repo.onLustre() {
		return
	}
	lfs, ok := proc.Look("lfs")
	if !ok {
		s.repo.events.Info("repository", "lfs is not installed: the image is not striped")
		return
	}
	cmd := proc.Cmd{Path: lfs, Env: os.Environ(), Args: []string{
		"setstripe", "--stripe-size", strconv.FormatInt(cmp.Or(o.Size, 4<<20), 10), "--stripe-count", strconv.Itoa(cmp.Or(o.Count, 32)), s.dir,
	}}
	if _, err := cmd.Output(ctx); err != nil { // slower, but no reason to stop
		s.repo.events.Warn("repository", "the image is not striped: %v", err)
	}
}
