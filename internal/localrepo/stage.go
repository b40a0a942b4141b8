package localrepo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Stage is a directory beside the images, in the same file system, into which an
// image's files are written before it gets its name.
type Stage struct {
	repo *Repo
	lock *Lock
	dir  string
	keep bool
	// hidden are the permissions that the image does not get although the repository
	// gives them.
	hidden fs.FileMode
}

// others is what those may do who are neither the owner nor in the group.
const others fs.FileMode = 0o007

// Content tells what was staged, so that Commit can prove it.
type Content struct {
	// Manifest is the raw manifest of a pulled image, whose digest is the
	// image's. It is nil for an image that is identified by its file. With a
	// manifest the image itself need not be staged: one that is in the
	// repository then stays, and otherwise only the metadata is there.
	Manifest []byte
	// Verified is the digest of the staged store.squashfs if the caller has
	// computed it from the bytes that it wrote. If empty, Commit reads the file.
	Verified digest.Digest
}

// Stage makes a staging directory for the image that the caller has locked. Of
// what an interrupted process has left in it, the image itself and files whose
// names begin with that of the image stay, for the download to be taken up again;
// all else is removed. The caller defers Abort.
func (r *Repo) Stage(l *Lock) (*Stage, error) {
	s := &Stage{repo: r, lock: l, dir: filepath.Join(r.images(), partialName(l.digest))}
	if info, err := os.Stat(r.Paths(l.digest).Dir); err == nil && info.Mode()&others == 0 {
		s.hidden = others // it takes the place of an image that is private
	}
	err := os.Mkdir(s.dir, 0o700)
	switch {
	case err == nil:
		err = os.Chmod(s.dir, s.dirMode()) // in a shared repository others clean up after a kill
	case errors.Is(err, fs.ErrExist):
		err = s.tidy()
	}
	return s, explain(err, "stage image %s", label.ID(l.digest))
}

// Private keeps the image from those who are neither the owner nor in the group,
// whatever the repository gives them.
func (s *Stage) Private() error {
	s.hidden = others
	return explain(os.Chmod(s.dir, s.dirMode()), "stage image %s", label.ID(s.lock.digest))
}

func (s *Stage) dirMode() fs.FileMode { return s.repo.dirMode &^ s.hidden }

func (s *Stage) fileMode() fs.FileMode { return s.repo.fileMode &^ s.hidden }

// tidy removes all but the image and what belongs to its download.
func (s *Stage) tidy() error {
	root, err := os.OpenRoot(s.repo.images())
	if err != nil {
		return err
	}
	defer root.Close()
	base := filepath.Base(s.dir)
	info, err := root.Lstat(base)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.Join(root.RemoveAll(base), root.Mkdir(base, s.dirMode()))
	}
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), imageName) {
			err = errors.Join(err, root.RemoveAll(filepath.Join(base, e.Name())))
		}
	}
	return err
}

// Reset empties the stage.
func (s *Stage) Reset() error {
	err := s.remove()
	if err == nil {
		err = os.Mkdir(s.dir, 0o700)
	}
	if err == nil {
		err = os.Chmod(s.dir, s.dirMode())
	}
	return explain(err, "stage image %s", label.ID(s.lock.digest))
}

// Staged returns how many bytes on disk there are of the image and of what belongs
// to its download.
func (s *Stage) Staged() int64 {
	entries, _ := os.ReadDir(s.dir)
	var total int64
	for _, e := range entries {
		var stat unix.Stat_t
		if strings.HasPrefix(e.Name(), imageName) && unix.Lstat(filepath.Join(s.dir, e.Name()), &stat) == nil {
			total += stat.Blocks * 512 // what stat(2) counts in, on every file system
		}
	}
	return total
}

// Keep lets Abort leave what there is of the image, so that a later Stage finds
// it.
func (s *Stage) Keep() { s.keep = true }

func partialName(d digest.Digest) string { return "." + d.Encoded() + ".partial" }

func removedName(d digest.Digest) string { return "." + d.Encoded() + ".removed" }

// Dir returns the directory to fill: store.squashfs, and meta/ where there is
// one.
func (s *Stage) Dir() string { return s.dir }

// Image returns the path to which the image itself is to be written.
func (s *Stage) Image() string { return filepath.Join(s.dir, imageName) }

// Abort removes what was staged, unless Keep was called. It does nothing after
// Commit.
func (s *Stage) Abort() {
	if s.keep && s.Staged() > 0 {
		return
	}
	if err := s.remove(); err != nil {
		s.repo.events.Warn("repository", "what was staged for image %s could not be removed: %v", label.ID(s.lock.digest), err)
	}
}

func (s *Stage) remove() error {
	root, err := os.OpenRoot(s.repo.images())
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(filepath.Base(s.dir))
}

// Commit checks the staged image against its identity, makes it durable and
// gives it its final name, in place of what had it. The caller still holds the
// lock; labels come after, by Add.
func (s *Stage) Commit(ctx context.Context, c Content) error {
	id := label.ID(s.lock.digest)
	if err := s.verify(ctx, c); err != nil {
		return explain(err, "image %s", id)
	}
	if c.Manifest != nil {
		if err := atomicfile.WriteBytes(filepath.Join(s.dir, manifestName), s.fileMode(), c.Manifest); err != nil {
			return explain(err, "image %s", id)
		}
	}
	if err := errors.Join(s.tidyUp(), s.finish()); err != nil {
		return explain(err, "store image %s", id)
	}
	if err := replaceDir(s.dir, s.repo.Paths(s.lock.digest).Dir); err != nil {
		return explain(err, "store image %s", id)
	}
	s.keep = false
	return explain(atomicfile.SyncDir(s.repo.images()), "store image %s", id)
}

func (s *Stage) verify(ctx context.Context, c Content) error {
	info, err := os.Lstat(s.Image())
	if errors.Is(err, fs.ErrNotExist) && c.Manifest != nil && c.Verified == "" {
		return s.keepImage(c.Manifest)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, "%s is not a regular file", imageName)
	}
	file := c.Verified
	if file == "" {
		if file, err = HashFile(ctx, s.Image(), nil); err != nil {
			return err
		}
	}
	if c.Manifest == nil {
		return same("file", file, s.lock.digest)
	}
	if err := same("manifest", digest.FromBytes(c.Manifest), s.lock.digest); err != nil {
		return err
	}
	layer, err := imageLayer(c.Manifest)
	if err != nil {
		return err
	}
	if info.Size() != layer.Size {
		return fault.New(fault.Invalid, "%s has %d bytes, the manifest says %d", imageName, info.Size(), layer.Size)
	}
	return same("file", file, layer.Digest)
}

// keepImage stages the image that the repository has already, if its size is
// right.
func (s *Stage) keepImage(manifest []byte) error {
	if err := same("manifest", digest.FromBytes(manifest), s.lock.digest); err != nil {
		return err
	}
	layer, err := imageLayer(manifest)
	if err != nil {
		return err
	}
	present := s.repo.Paths(s.lock.digest).Image
	if info, err := os.Lstat(present); err != nil || !info.Mode().IsRegular() || info.Size() != layer.Size {
		return nil
	}
	return os.Link(present, s.Image())
}

func same(what string, got, want digest.Digest) error {
	if got != want {
		return fault.New(fault.Invalid, "the %s's digest is %s, not %s", what, got, want)
	}
	return nil
}

// imageLayer returns the descriptor of store.squashfs in an image's manifest.
func imageLayer(manifest []byte) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "%s: %w", manifestName, err)
	}
	if len(m.Layers) != 1 {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "%s: an image has one layer, not %d", manifestName, len(m.Layers))
	}
	return m.Layers[0], nil
}

// tidyUp removes what the download of the image leaves beside it.
func (s *Stage) tidyUp() error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if e.Name() != imageName && strings.HasPrefix(e.Name(), imageName) {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, e.Name())))
		}
	}
	return err
}

// finish gives everything the repository's mode and makes it durable.
func (s *Stage) finish() error {
	var dirs []string
	err := filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			dirs = append(dirs, path)
			return os.Chmod(path, s.dirMode())
		case entry.Type().IsRegular():
			return s.finishFile(path, entry)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = atomicfile.SyncDir(dirs[i])
	}
	return err
}

// finishFile keeps who may execute a file and lets the repository decide who may
// read and write it.
func (s *Stage) finishFile(path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	mode := s.fileMode()
	if info.Mode()&0o100 != 0 {
		mode |= s.dirMode() & 0o111
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Chmod(mode), file.Sync(), file.Close())
}

// replaceDir gives the directory from the name to, atomically where the file
// system can exchange two names.
func replaceDir(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err == nil {
		return nil
	}
	if _, statErr := os.Lstat(to); errors.Is(statErr, fs.ErrNotExist) {
		return os.Rename(from, to) // a file system without flags, or the error that this gives
	}
	if unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE) == nil {
		return os.RemoveAll(from)
	}
	doomed := filepath.Join(filepath.Dir(to), "."+filepath.Base(to)+".removed")
	if err := errors.Join(os.RemoveAll(doomed), os.Rename(to, doomed)); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, os.Rename(doomed, to))
	}
	if err := os.RemoveAll(doomed); err != nil {
		return fmt.Errorf("remove the former image: %w", err)
	}
	return nil
}
