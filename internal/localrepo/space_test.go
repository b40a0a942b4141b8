package localrepo

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

func TestCheckSpace(t *testing.T) {
	r := open(t, t.TempDir())
	if err := r.CheckSpace(t.Context(), Need{Bytes: 1, Files: 1}); err != nil {
		t.Error(err)
	}
	pull(t, r, []byte("former"), "hello/1:1@s%u")
	pull(t, r, []byte("latter"), "hello/1:1@s%u")
	unused := pull(t, r, make([]byte, 2000), "old/1:1@s%u")
	ago := time.Now().Add(-100 * 24 * time.Hour)
	for _, path := range []string{r.Paths(unused).Image, filepath.Join(r.Paths(unused).Meta, "env.json")} {
		if err := os.Chtimes(path, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	r.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	err := r.CheckSpace(t.Context(), Need{Bytes: math.MaxInt64})
	if fault.KindOf(err) != fault.Failure || !strings.Contains(err.Error(), "are free") {
		t.Errorf("got %v", err)
	}
	hint := fault.HintOf(err)
	if !strings.Contains(hint, "'uenv-ci repo prune' frees") || !strings.Contains(hint, "--unused 90d' frees 2.") || !strings.Contains(hint, "old/1:1@s%u") {
		t.Errorf("hint %q", hint)
	}
	if got := find(t, r, "", false); len(got) != 2 {
		t.Errorf("the hint removed something: %q", got)
	}
}

// mountTmpfs needs root and puts a small file system at dir.
func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount tmpfs with %s here: %v", options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestCheckSpaceOfAFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	mountTmpfs(t, dir, "size=1m,nr_inodes=40")
	r := open(t, dir)
	for _, n := range []Need{{Bytes: 2 << 20}, {Files: 50}} {
		if err := r.CheckSpace(t.Context(), n); err == nil || fault.HintOf(err) == "" {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if err := r.CheckSpace(t.Context(), Need{Bytes: 1 << 19, Files: 10}); err != nil {
		t.Error(err)
	}
}

func TestCheckSpaceUnderAQuota(t *testing.T) {
	dir := t.TempDir()
	mountTmpfs(t, dir, "size=64m,usrquota_block_hardlimit=4m,usrquota_inode_hardlimit=60")
	if err := errors.Join(os.Chmod(dir, 0o777), os.WriteFile(filepath.Join(dir, "big"), make([]byte, 1<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := spaceOf(dir)
	if s.Quota <= 2<<20 || s.Quota > 3<<20 || s.QuotaFiles <= 0 || s.QuotaFiles >= 60 {
		t.Fatalf("got %+v", s)
	}
	r := open(t, dir)
	for want, n := range map[string]Need{"your quota leaves 3": {Bytes: 8 << 20}, "files are needed and your quota": {Files: 60}} {
		if err := r.CheckSpace(t.Context(), n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", n, err)
		}
	}
}

func TestQuotaLeft(t *testing.T) {
	for _, c := range []struct {
		q            quota
		bytes, files int64
	}{
		{quota{}, -1, -1},
		{quota{valid: 63}, -1, -1},
		{quota{valid: 63, bytesHard: 10, bytesUsed: 240, filesHard: 5, filesUsed: 2}, 10000, 3},
		{quota{valid: 63, bytesHard: 1, bytesUsed: 4096, filesHard: 5, filesUsed: 9}, 0, 0},
		{quota{valid: 1, bytesHard: 1}, -1, -1},
	} {
		if b, f := c.q.bytesLeft(), c.q.filesLeft(); b != c.bytes || f != c.files {
			t.Errorf("%+v: %d, %d", c.q, b, f)
		}
	}
}

// What the system tells only while writing, as a quota on a network file system, is
// explained alike.
func TestExplainTellsWhatCouldBeFreed(t *testing.T) {
	r := open(t, t.TempDir())
	for _, errno := range []error{unix.EDQUOT, unix.ENOSPC} {
		cause := &fs.PathError{Op: "write", Path: "x", Err: errno}
		if err := r.Explain(t.Context(), cause); !errors.Is(err, errno) || !strings.Contains(fault.HintOf(err), "repo du") {
			t.Errorf("%v; %s", err, fault.HintOf(err))
		}
	}
	left := filepath.Join(r.images(), partialName(digest.FromString("left")))
	if err := errors.Join(os.MkdirAll(left, 0o755), os.WriteFile(filepath.Join(left, imageName+".partial"), make([]byte, 5000), 0o600)); err != nil {
		t.Fatal(err)
	}
	r.now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	if hint := fault.HintOf(r.Explain(t.Context(), unix.EDQUOT)); !strings.Contains(hint, "'uenv-ci repo prune' frees 5.00 kB") {
		t.Errorf("hint %q", hint)
	}
	if other := errors.New("other"); r.Explain(t.Context(), other) != other {
		t.Error("another error was changed")
	}
}
