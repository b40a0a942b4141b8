package localrepo

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Ages below which something that nobody needs may be just about to be used: a
// database or an image that another program has yet to enter, a download that is
// taken up again tomorrow, a lock file that the uenv client has opened and waits
// for (it would not notice that the file is gone).
const (
	youngMade     = time.Hour
	youngDownload = 24 * time.Hour
	youngLock     = 24 * time.Hour
)

// PruneOptions say what Prune removes.
type PruneOptions struct {
	Dry    bool          // only tell
	All    bool          // do not spare what is young
	Unused time.Duration // also images that nobody has used for so long, with their labels; 0 is none
}

// The kinds of what Prune removes.
const (
	LeftImage   = "image"   // lost its last label to another
	LeftUnused  = "unused"  // labelled, but not used for long
	LeftPartial = "partial" // of a killed process
	LeftRemoved = "removed" // of a killed removal
	LeftLock    = "lock"    // without an image
	LeftRow     = "row"     // of the database
)

// Leftover is something in the repository that nobody needs.
type Leftover struct {
	Path     string        `json:"path"` // relative to the repository; "" for a mere row of the database
	Kind     string        `json:"kind"`
	Bytes    int64         `json:"bytes"`
	Labels   []label.Label `json:"labels,omitempty"`    // of an unused image
	LastUsed *time.Time    `json:"last_used,omitempty"` // likewise
}

// Prune removes what no label needs: images that lost their last label to
// another, what killed processes left, lock files without image. What another
// process is working on stays.
func (r *Repo) Prune(ctx context.Context, o PruneOptions) ([]Leftover, error) {
	if !o.Dry {
		if err := r.writable(); err != nil {
			return nil, err
		}
	}
	gone, err := r.pruneUnused(ctx, o)
	if err != nil {
		return gone, err
	}
	candidates, err := r.unneeded(ctx)
	if err != nil {
		return gone, err
	}
	for _, d := range candidates {
		found, err := r.pruneImage(ctx, d, o)
		gone = append(gone, found...)
		if err != nil {
			return gone, explain(err, "prune image %s", label.ID(d))
		}
	}
	for _, prune := range []func(PruneOptions) ([]Leftover, error){r.pruneLocks, r.pruneIndexes} {
		found, err := prune(o)
		gone = append(gone, found...)
		if err != nil {
			return gone, explain(err, "prune local repository %s", r.dir)
		}
	}
	slices.SortFunc(gone, func(a, b Leftover) int { return strings.Compare(a.Path, b.Path) })
	return gone, nil
}

// unneeded lists the images without a label, and those beside which there is
// something that a killed process has left.
func (r *Repo) unneeded(ctx context.Context) ([]digest.Digest, error) {
	all, err := r.inventory(ctx)
	if err != nil {
		return nil, err
	}
	found := map[digest.Digest]bool{}
	for _, it := range all {
		if len(it.labels) == 0 {
			found[it.digest] = true
		}
	}
	entries, err := readDir(r.images())
	if err != nil {
		return nil, explain(err, "read local repository %s", r.dir)
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), ".")
		if !ok {
			continue
		}
		hex, _, _ := strings.Cut(name, ".")
		if d := digest.NewDigestFromEncoded(digest.SHA256, hex); checkDigest(d) == nil {
			found[d] = true
		}
	}
	var sorted []digest.Digest
	for d := range found {
		sorted = append(sorted, d)
	}
	slices.Sort(sorted)
	return sorted, nil
}

// readDir is os.ReadDir for a directory that may not exist.
func readDir(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// pruneImage removes what is left over of one image, under its lock.
func (r *Repo) pruneImage(ctx context.Context, d digest.Digest, o PruneOptions) ([]Leftover, error) {
	if o.Dry {
		if r.held(d) {
			return nil, nil
		}
		found, _, err := r.leftovers(ctx, d, o)
		return found, err
	}
	lock, err := r.TryLock(ctx, d)
	if lock == nil {
		return nil, err
	}
	defer lock.Unlock()
	found, row, err := r.leftovers(ctx, d, o)
	if err != nil {
		return nil, err
	}
	if row {
		err := transact(ctx, r.db, func(tx *sql.Tx) error { return deleteRows(ctx, tx, d.Encoded(), nil, true) })
		if err != nil {
			return nil, err
		}
	}
	return found, r.removeLeft(lock, found)
}

// removeLeft removes the files of an image that were found to be left over.
func (r *Repo) removeLeft(lock *Lock, found []Leftover) error {
	root, err := os.OpenRoot(r.images())
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range found {
		switch f.Kind {
		case LeftImage:
			_, _, err = r.removeFiles(lock)
		case LeftPartial, LeftRemoved:
			err = root.RemoveAll(filepath.Base(f.Path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// held tells whether a process has the lock of an image, without making a lock
// file.
func (r *Repo) held(d digest.Digest) bool {
	file, err := openRegular(r.Paths(d).Lock, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	got, err := tryFlock(file)
	return err == nil && !got
}

// leftovers lists what is left over of an image: files, and a row of the
// database. Of an image with labels that is only what is beside it.
func (r *Repo) leftovers(ctx context.Context, d digest.Digest, o PruneOptions) (found []Leftover, row bool, err error) {
	var labels int
	err = r.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM tags WHERE sha256 = ?1), (SELECT count(*) > 0 FROM images WHERE sha256 = ?1)`,
		d.Encoded()).Scan(&labels, &row)
	if err != nil {
		return nil, false, err
	}
	name := d.Encoded()
	for _, f := range []struct {
		kind, file string
		young      time.Duration
	}{{LeftPartial, partialName(d), youngDownload}, {LeftRemoved, removedName(d), 0}, {LeftImage, name, youngMade}} {
		path := filepath.Join(r.images(), f.file)
		changed, err := lastChange(path)
		if err != nil || f.kind == LeftImage && labels > 0 {
			continue
		}
		if !o.All && r.now().Sub(changed) < f.young {
			row = row && f.kind != LeftImage
			continue
		}
		found = append(found, Leftover{Path: filepath.Join(imagesName, f.file), Kind: f.kind, Bytes: diskUsage(path)})
	}
	row = row && labels == 0
	hasImage := slices.ContainsFunc(found, func(l Leftover) bool { return l.Kind == LeftImage })
	if row && !hasImage { // else it goes without saying
		found = append(found, Leftover{Kind: LeftRow})
	}
	return found, row, nil
}

// pruneLocks removes lock files without an image. The lock is held for no longer
// than that takes.
func (r *Repo) pruneLocks(o PruneOptions) ([]Leftover, error) {
	entries, err := readDir(r.images())
	var found []Leftover
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), ".lock")
		d := digest.NewDigestFromEncoded(digest.SHA256, name)
		if !isLock || checkDigest(d) != nil || !e.Type().IsRegular() || exists(r.Paths(d).Dir) || exists(filepath.Join(r.images(), partialName(d))) {
			continue
		}
		removed, removeErr := r.removeLock(d, o)
		err = errors.Join(err, removeErr)
		if removed {
			found = append(found, Leftover{Path: filepath.Join(imagesName, e.Name()), Kind: LeftLock})
		}
	}
	return found, err
}

// removeLock removes a lock file that is old and free.
func (r *Repo) removeLock(d digest.Digest, o PruneOptions) (bool, error) {
	path := r.Paths(d).Lock
	changed, err := lastChange(path)
	if err != nil || !o.All && r.now().Sub(changed) < youngLock {
		return false, nil
	}
	file, err := openRegular(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	if got, err := tryFlock(file); err != nil || !got || !current(file) {
		return false, err
	}
	if o.Dry {
		return true, nil
	}
	return true, os.Remove(path)
}

// pruneIndexes removes the databases of processes that were killed while they
// made the repository.
func (r *Repo) pruneIndexes(o PruneOptions) ([]Leftover, error) {
	entries, err := readDir(r.dir)
	var found []Leftover
	for _, e := range entries {
		path := filepath.Join(r.dir, e.Name())
		changed, statErr := lastChange(path)
		if !strings.HasPrefix(e.Name(), "."+databaseName+"-") || statErr != nil || !o.All && r.now().Sub(changed) < youngMade {
			continue // gone, or perhaps still at work
		}
		found = append(found, Leftover{Path: filepath.Base(path), Kind: LeftPartial, Bytes: diskUsage(path)})
		if !o.Dry {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return found, err
}

// pruneUnused removes the images that were not used for long, with their labels.
func (r *Repo) pruneUnused(ctx context.Context, o PruneOptions) ([]Leftover, error) {
	if o.Unused <= 0 {
		return nil, nil
	}
	if !keepsAccessTimes(r.dir) {
		err := fault.New(fault.Refused, "the file system of %s does not keep the times of last use", r.dir)
		return nil, fault.WithHint(err, "'uenv-ci rm LABEL' removes single images")
	}
	all, err := r.Du(ctx)
	if err != nil {
		return nil, err
	}
	var gone []Leftover
	for _, u := range all {
		if len(u.Labels) == 0 || u.Condition == MetaOnly || u.LastUsed.IsZero() || r.now().Sub(u.LastUsed) < o.Unused || r.held(u.Digest) {
			continue
		}
		path, _ := filepath.Rel(r.dir, r.Paths(u.Digest).Dir)
		gone = append(gone, Leftover{Path: path, Kind: LeftUnused, Bytes: u.Bytes, Labels: u.Labels, LastUsed: &u.LastUsed})
		if o.Dry {
			continue
		}
		if _, err := r.RemoveDigest(ctx, u.Digest); err != nil {
			return gone, err
		}
	}
	return gone, nil
}
