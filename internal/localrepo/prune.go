package localrepo

import (
	"cmp"
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
)

// longMade is the age at which nobody can still be making a database.
const longMade = time.Hour

// Leftover is something in the repository that no label needs.
type Leftover struct {
	Path  string `json:"path"` // relative to the repository; "" for a mere row of the database
	Kind  string `json:"kind"` // "image", "partial", "removed", "lock" or "row"
	Bytes int64  `json:"bytes"`
}

// Prune removes what no label needs: images that lost their last label to
// another, what killed processes left, lock files without image. What another
// process is working on stays. With dry it only tells.
func (r *Repo) Prune(ctx context.Context, dry bool) ([]Leftover, error) {
	if err := r.writable(); err != nil {
		return nil, err
	}
	all, err := r.inventory(ctx)
	if err != nil {
		return nil, err
	}
	candidates := map[digest.Digest]bool{}
	for _, it := range all {
		if len(it.labels) == 0 {
			candidates[it.digest] = true
		}
	}
	entries, err := os.ReadDir(r.images())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, explain(err, "read local repository %s", r.dir)
	}
	for _, e := range entries {
		if name := digestPart(e.Name()); name != e.Name() {
			if d := digest.NewDigestFromEncoded(digest.SHA256, name); checkDigest(d) == nil {
				candidates[d] = true
			}
		}
	}
	var gone []Leftover
	for d := range candidates {
		found, err := r.pruneImage(ctx, d, dry)
		gone = append(gone, found...)
		if err != nil {
			return gone, explain(err, "prune image %s", ID(d))
		}
	}
	found, err := r.pruneIndexes(dry)
	gone = append(gone, found...)
	slices.SortFunc(gone, func(a, b Leftover) int { return strings.Compare(a.Path, b.Path) })
	return gone, explain(err, "prune local repository %s", r.dir)
}

// pruneIndexes removes the databases of processes that were killed while they
// made the repository.
func (r *Repo) pruneIndexes(dry bool) ([]Leftover, error) {
	paths, err := filepath.Glob(filepath.Join(r.dir, "."+databaseName+"-*"))
	var found []Leftover
	for _, path := range paths {
		info, statErr := os.Lstat(path)
		if statErr != nil || time.Since(info.ModTime()) < longMade {
			continue // gone, or perhaps still at work
		}
		found = append(found, Leftover{filepath.Base(path), "partial", info.Size()})
		if !dry {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return found, err
}

// digestPart strips what is around the digest in names of ours.
func digestPart(name string) string {
	name = strings.TrimPrefix(name, ".")
	for _, suffix := range []string{".lock", ".partial", ".removed"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

// pruneImage removes what is left over of one image, under its lock.
func (r *Repo) pruneImage(ctx context.Context, d digest.Digest, dry bool) ([]Leftover, error) {
	_, statErr := os.Stat(r.Paths(d).Lock)
	lock, err := r.TryLock(ctx, d)
	if lock == nil {
		return nil, err
	}
	defer lock.Unlock()
	labels, row, err := r.references(ctx, d)
	if err != nil {
		return nil, err
	}
	found := r.leftovers(d, labels > 0, statErr == nil)
	if row && labels == 0 {
		found = append(found, Leftover{Kind: "row"})
	}
	if dry {
		if statErr != nil {
			err = os.Remove(r.Paths(d).Lock) // made by TryLock
		}
		return found, err
	}
	if labels == 0 {
		err := transact(ctx, r.db, func(tx *sql.Tx) error { return deleteRows(ctx, tx, d.Encoded(), nil, true) })
		if err != nil {
			return nil, err
		}
		if _, _, err := r.removeFiles(lock); err != nil {
			return nil, err
		}
	}
	return found, r.removeRest(d, labels > 0)
}

// references tells how many labels name an image, and whether it has a row.
func (r *Repo) references(ctx context.Context, d digest.Digest) (labels int, row bool, err error) {
	err = r.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM tags WHERE sha256 = ?1), (SELECT count(*) > 0 FROM images WHERE sha256 = ?1)`,
		d.Encoded()).Scan(&labels, &row)
	return labels, row, err
}

// leftovers lists the files that go with an image; of a labelled one only what
// is beside it.
func (r *Repo) leftovers(d digest.Digest, labelled, locked bool) []Leftover {
	name := d.Encoded()
	kinds := map[string]string{partialName(d): "partial", "." + name + ".removed": "removed"}
	if !labelled {
		kinds[name] = "image"
	}
	var found []Leftover
	for file, kind := range kinds {
		path := filepath.Join(r.images(), file)
		if _, err := os.Lstat(path); err == nil {
			found = append(found, Leftover{filepath.Join(imagesName, file), kind, diskUsage(path)})
		}
	}
	if _, err := os.Stat(r.Paths(d).Dir); locked && (!labelled || err != nil) {
		found = append(found, Leftover{filepath.Join(imagesName, name+".lock"), "lock", 0})
	}
	return found
}

// removeRest removes what is beside an image, and the lock of one that is gone.
func (r *Repo) removeRest(d digest.Digest, labelled bool) error {
	root, err := os.OpenRoot(r.images())
	if err != nil {
		return err
	}
	defer root.Close()
	err = errors.Join(root.RemoveAll(partialName(d)), root.RemoveAll("."+d.Encoded()+".removed"))
	if _, statErr := root.Stat(d.Encoded()); !labelled || statErr != nil {
		err = errors.Join(err, root.RemoveAll(d.Encoded()+".lock"))
	}
	return err
}

// Usage is what an image takes on disk.
type Usage struct {
	Finding
	Bytes    int64     `json:"bytes"`     // all of its files
	LastUsed time.Time `json:"last_used"` // access time of the image, where the file system keeps it
}

// Du lists the images by what they take on disk, the largest first.
func (r *Repo) Du(ctx context.Context) ([]Usage, error) {
	findings, err := r.Verify(ctx, VerifyOptions{Quick: true})
	if err != nil {
		return nil, err
	}
	var all []Usage
	for _, f := range findings {
		paths := r.Paths(f.Digest)
		all = append(all, Usage{f, diskUsage(paths.Dir), accessed(paths.Image)})
	}
	slices.SortStableFunc(all, func(a, b Usage) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return all, nil
}

// Status sums up a repository.
type Status struct {
	Path     string         `json:"path"`
	Writable bool           `json:"writable"`
	Labels   int            `json:"labels"`
	Images   int            `json:"images"`
	Bytes    int64          `json:"bytes"`
	Free     int64          `json:"free"` // of the file system, bytes
	Bad      map[string]int `json:"bad"`  // how many images are in which bad condition
}

// Status looks at sizes only.
func (r *Repo) Status(ctx context.Context) (Status, error) {
	all, err := r.Du(ctx)
	if err != nil {
		return Status{}, err
	}
	s := Status{Path: r.dir, Writable: writableBy(r.dir), Free: freeSpace(r.dir), Bad: map[string]int{}}
	for _, u := range all {
		s.Labels += len(u.Labels)
		s.Images++
		s.Bytes += u.Bytes
		if u.Bad() || u.Condition == Orphaned {
			s.Bad[string(u.Condition)]++
		}
	}
	return s, nil
}
