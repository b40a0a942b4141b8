package mount

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/squashfs"
)

// Served says what is to be served where.
type Served struct {
	Image string // path of the squashfs file
	Dir   string // the directory where the content is to appear

	// Alone mounts without the setuid helper of FUSE: as root, or in a user and
	// mount namespace of one's own.
	Alone  bool
	Ready  func() // called when the content is there
	Events event.Sink
}

// Serve makes an image's content appear at a directory, for all who see it, and
// answers the kernel's questions itself. It returns when somebody unmounts the
// directory, or unmounts it when the context ends.
func Serve(ctx context.Context, s Served) error {
	dir, err := servedDir(ctx, s.Dir)
	if err != nil {
		return err
	}
	m, err := squashfs.Open(s.Image)
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "mount %s: there is no such file", s.Image)
	}
	if err != nil {
		return fault.Wrap(fault.KindOf(err), err, "mount")
	}
	inUse := false
	defer func() {
		if !inUse { // open files are read from it as long as the process lives
			m.Close()
		}
	}()
	files, err := newFilesystem(m, s.Events)
	if err != nil {
		return fault.Wrap(fault.KindOf(err), err, "mount %s", s.Image)
	}
	a, err := attach(ctx, s.Image, dir, s.Alone)
	if err != nil {
		return fault.WithHint(fault.Wrap(fault.KindOf(err), err, "mount %s at %s", s.Image, dir), "%s", fault.HintOf(err))
	}
	defer moreProcessors()()
	server, err := fuse.NewServer(files, magicPath(a.fd), &fuse.MountOptions{
		EnableSymlinkCaching: true, ExplicitDataCacheControl: true, DisableSplice: true,
		MaxBackground: 64, Logger: log.New(quiet{}, "", 0),
	})
	if err != nil {
		return errors.Join(fmt.Errorf("mount %s at %s: %w", s.Image, dir, err), a.detach(ctx))
	}
	inUse, err = s.untilUnmounted(ctx, server, a)
	return err
}

// untilUnmounted answers the kernel until the directory is unmounted, which the end of the
// context does. If that fails, files of the image are still in use.
func (s Served) untilUnmounted(ctx context.Context, server *fuse.Server, a attachment) (inUse bool, err error) {
	ended := make(chan struct{})
	go func() {
		server.Serve()
		close(ended)
	}()
	if s.Ready != nil {
		s.Ready()
	}
	select {
	case <-ended:
		return false, nil
	case <-ctx.Done():
		err := a.detach(ctx)
		if endsSoon(ended) { // by us, or by somebody else just now
			return false, nil
		}
		return true, err
	}
}

func endsSoon(ended <-chan struct{}) bool {
	select {
	case <-ended:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// moreProcessors lets the scheduler have more threads than there are processors.
// Those that wait for the kernel's next question count; if they were all, the
// scheduler would take them back again and again, and wake others for nothing.
func moreProcessors() (undo func()) {
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(2*before + 2)
	return func() { runtime.GOMAXPROCS(before) }
}

// servedDir checks the directory and returns its real path.
func servedDir(ctx context.Context, dir string) (string, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("mount: %w", err)
	}
	clearDead(ctx, absolute)
	real, err := filepath.EvalSymlinks(absolute)
	if errors.Is(err, os.ErrNotExist) {
		return "", fault.WithHint(fault.New(fault.NotFound, "mount: there is no directory %s", dir), "mkdir %s", dir)
	}
	if err != nil {
		return "", fmt.Errorf("mount: %w", err)
	}
	return real, checkPoint(real, "")
}

// quiet drops what the FUSE module says: answers that came too late.
type quiet struct{}

func (quiet) Write(b []byte) (int, error) { return len(b), nil }
