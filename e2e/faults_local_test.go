package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

func TestFaultsOfTheDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	tally(t, "disk full at n bytes", func(stage *stage, random *rand.Rand) (outcome, error) {
		w := stage.road(random, false)
		defer w.end()
		for _, s := range steps[:len(steps)-1] {
			if err := s.run(w); err != nil {
				return bad, err
			}
		}
		w.repo = filepath.Join(small, "repo")
		defer os.RemoveAll(w.repo)
		ballast := filepath.Join(small, "ballast")
		defer os.Remove(ballast)
		left := random.Int64N(w.file.Size + w.file.Size/2)
		// Half of the time the disk fills up while the image comes.
		fill := func() error { return fillUp(ballast, small, left) }
		if random.IntN(2) == 0 {
			once := make(chan struct{}, 1)
			w.breaks(registrytest.Rule{Method: http.MethodGet, Path: blobPath, Skip: 1, Fault: func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				select {
				case once <- struct{}{}:
					_ = fill()
				default:
				}
				next.ServeHTTP(rw, r)
			}})
		} else if err := fill(); err != nil {
			return bad, err
		}
		err := w.pull()
		w.mend()
		if err == nil {
			return succeeded, errors.Join(w.check(), w.arrived())
		}
		if !errors.Is(err, syscall.ENOSPC) && fault.HintOf(err) == "" {
			return bad, fmt.Errorf("not a clear error: %w", err)
		}
		if err := errors.Join(os.Remove(ballast), w.check()); err != nil {
			return bad, err
		}
		return recovered, errors.Join(w.pull(), w.check(), w.arrived())
	})
}

// fillUp leaves so many bytes of a file system.
func fillUp(file, dir string, left int64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err
	}
	size := int64(s.Bavail)*s.Bsize - left
	if size <= 0 {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
}

func TestFaultsOfCertificates(t *testing.T) {
	tally(t, "certificate error", func(stage *stage, random *rand.Rand) (outcome, error) {
		address, ca := registrytest.ServeTLS(stage.t, registrytest.Handler(registrytest.Referrers))
		w := stage.road(random, false)
		defer w.end()
		file := registry.BytesLayer("file", "", make([]byte, 1+random.IntN(100_000)))
		push := func(o registry.Options) error {
			o.Retry = w.retry
			reg, err := registry.Open("https://"+address, o)
			if err != nil {
				return err
			}
			repo, err := reg.Repository("hello/1.0")
			if err == nil {
				_, err = repo.Push(w.ctx, registry.Artifact{Type: "text/plain", Layers: []registry.Layer{file}})
			}
			return err
		}
		err := push(registry.Options{})
		if err == nil {
			return bad, errors.New("a certificate of nobody was believed")
		}
		if fault.HintOf(err) == "" {
			return bad, fmt.Errorf("no hint: %w", err)
		}
		return recovered, push(registry.Options{CAFile: ca})
	})
}

// A clock that went backwards leaves files from the future, and records whose order
// in time is not that in which they were made.
func TestFaultsOfClocks(t *testing.T) {
	tally(t, "clock going backwards", func(stage *stage, random *rand.Rand) (outcome, error) {
		w := stage.road(random, false)
		defer w.end()
		for _, s := range steps[:len(steps)-1] {
			if err := s.run(w); err != nil {
				return bad, err
			}
		}
		w.breaks(registrytest.Rule{Method: http.MethodGet, Path: blobPath, Skip: 1 + random.IntN(2), Fault: registrytest.ResetAfter(random.Int64N(smallImage))})
		first := w.pull()
		w.mend()
		ahead := time.Now().Add(time.Duration(1+random.IntN(1000)) * time.Hour)
		if err := errors.Join(fromFuture(w.repo, ahead), w.check()); err != nil {
			return bad, err
		}
		result := succeeded
		if first != nil {
			result = recovered
		}
		return result, errors.Join(w.promote(), w.pull(), w.prune(), w.check(), w.arrived())
	})
}

// fromFuture gives every file a time that has not come yet.
func fromFuture(dir string, at time.Time) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, at, at)
	})
}
