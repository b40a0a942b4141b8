package localrepo

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
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

// ParseStriping reads COUNT, COUNTxSIZE or "off", such as 32x4M; COUNT may be
// "all", SIZE is in powers of 1024. "" is the zero value. An error is of kind Usage.
func ParseStriping(text string) (Striping, error) {
	fail := func(why string) (Striping, error) {
		err := fault.New(fault.Usage, "%q is no striping: %s", text, why)
		return Striping{}, fault.WithHint(err, "write COUNT, COUNTxSIZE such as 32x4M, or off; COUNT may be all")
	}
	if text == "" || text == "off" {
		return Striping{Off: text == "off"}, nil
	}
	count, size, sized := strings.Cut(text, "x")
	s := Striping{Count: -1}
	if n, err := strconv.Atoi(count); count != "all" && (err != nil || n < 1 || n > mostStripes) {
		return fail(fmt.Sprintf("the count is not from 1 to %d", mostStripes))
	} else if count != "all" {
		s.Count = n
	}
	if !sized {
		return s, nil
	}
	unit := map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
	factor, number := int64(1), size
	if n := len(size); n > 0 && unit[size[n-1:]] > 0 {
		factor, number = unit[size[n-1:]], size[:n-1]
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > mostStripeSize/factor || n*factor%stripeUnit != 0 {
		return fail("the size is not a multiple of 64K, up to 4G")
	}
	s.Size = n * factor
	return s, nil
}

// Limits of lfs setstripe.
const (
	mostStripes    = 2000
	stripeUnit     = 64 << 10
	mostStripeSize = 4<<30 - stripeUnit
)

func fsType(path string) int64 {
	var stat unix.Statfs_t
	if unix.Statfs(path, &stat) != nil {
		return 0
	}
	return int64(stat.Type)
}

func (r *Repo) onLustre() bool { return r.fsType(r.dir) == lustreMagic }

// Stripe spreads the image that is about to be written to the stage over many storage
// targets, where the file system supports that. Call it before the first byte of the
// image, and after small files, which striping only slows down.
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
