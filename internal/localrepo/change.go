package localrepo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Removed is what a removal took away.
type Removed struct {
	Records []Record      `json:"records"` // labels that are gone
	Digest  digest.Digest `json:"digest"`
	Files   bool          `json:"files"` // the image itself is gone too
	Bytes   int64         `json:"bytes"` // freed
}

// Add makes labels name images whose files are in the repository, all of them or
// none. A label that named another image names the new one; as with the client,
// the files of the other stay until Prune.
func (r *Repo) Add(ctx context.Context, records ...Record) error {
	if err := r.writable(); err != nil {
		return err
	}
	for _, rec := range records {
		if err := rec.check(); err != nil {
			return fmt.Errorf("add %s: %w", rec.Label, err)
		}
		if _, err := os.Stat(r.Paths(rec.Digest).Dir); err != nil {
			return explain(err, "add %s: its image is not in the repository", rec.Label)
		}
	}
	err := transact(ctx, r.db, func(tx *sql.Tx) error {
		for _, rec := range records {
			if err := r.add(ctx, tx, rec); err != nil {
				return fmt.Errorf("%s: %w", rec.Label, err)
			}
		}
		return nil
	})
	return explain(err, "add to local repository %s", r.dir)
}

func (r *Repo) add(ctx context.Context, tx *sql.Tx, rec Record) error {
	sha, l := rec.Digest.Encoded(), rec.Label
	_, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO images (sha256, id, date, size) VALUES (?, ?, ?, ?)",
		sha, label.ID(rec.Digest), rec.Date.UTC().Format(dateLayout), rec.Size)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT OR IGNORE INTO uenv (system, uarch, name, version) VALUES (?, ?, ?, ?)",
		l.System, l.UArch, l.Name, l.Version)
	if err != nil {
		return err
	}
	var version int64
	err = tx.QueryRowContext(ctx, "SELECT version_id FROM uenv WHERE system = ? AND uarch = ? AND name = ? AND version = ?",
		l.System, l.UArch, l.Name, l.Version).Scan(&version)
	if err != nil {
		return err
	}
	var before string
	err = tx.QueryRowContext(ctx, "SELECT sha256 FROM tags WHERE version_id = ? AND tag = ?", version, l.Tag).Scan(&before)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO tags (version_id, tag, sha256) VALUES (?, ?, ?)
		ON CONFLICT (version_id, tag) DO UPDATE SET sha256 = excluded.sha256`, version, l.Tag, sha)
	if err == nil && before != "" && before != sha {
		r.events.Info("repository", "%s named image %.16s before", l, before)
	}
	return err
}

// RemoveLabel removes one label, which must be complete. The image goes with its
// last label.
func (r *Repo) RemoveLabel(ctx context.Context, l label.Label) (Removed, error) {
	l.Namespace = ""
	if missing := l.Missing(); len(missing) > 0 {
		return Removed{}, fault.New(fault.Usage, "remove %s: the label has no %s", l, missing[0])
	}
	found, err := r.Find(ctx, l, false)
	if err != nil {
		return Removed{}, err
	}
	if len(found) == 0 {
		return Removed{}, fault.New(fault.NotFound, "%s is not in the local repository %s", l, r.dir)
	}
	return r.remove(ctx, found[0].Digest, func(rec Record) bool { return rec.Label == l })
}

// RemoveDigest removes an image with all its labels, and also one that has only
// files left.
func (r *Repo) RemoveDigest(ctx context.Context, d digest.Digest) (Removed, error) {
	return r.remove(ctx, d, func(Record) bool { return true })
}

// remove takes away those labels of an image that match. The files go after the
// labels, so that a kill in between leaves files without a label, never a label
// without files.
func (r *Repo) remove(ctx context.Context, d digest.Digest, match func(Record) bool) (Removed, error) {
	lock, err := r.Lock(ctx, d)
	if err != nil {
		return Removed{}, err
	}
	defer lock.Unlock()
	removed, kept := Removed{Digest: d}, 0
	err = transact(ctx, r.db, func(tx *sql.Tx) error { // whoever labels it does so before or after
		all, err := r.recordsIn(ctx, tx)
		if err != nil {
			return err
		}
		for _, rec := range all {
			switch {
			case rec.Digest != d:
			case match(rec):
				removed.Records = append(removed.Records, rec)
			default:
				kept++
			}
		}
		return deleteRows(ctx, tx, d.Encoded(), removed.Records, kept == 0)
	})
	if err != nil || kept > 0 {
		return removed, explain(err, "remove from local repository %s", r.dir)
	}
	removed.Files, removed.Bytes, err = r.removeFiles(lock)
	if err == nil {
		err = os.RemoveAll(filepath.Join(r.images(), partialName(d)))
	}
	if err == nil && !removed.Files && len(removed.Records) == 0 {
		err = fault.New(fault.NotFound, "image %s is not in the local repository %s", label.ID(d), r.dir)
	}
	return removed, explain(err, "remove image %s", label.ID(d))
}

// deleteRows removes labels and, if they were the last, the image. It does what
// the client's triggers do as well, for repositories that have none.
func deleteRows(ctx context.Context, tx *sql.Tx, sha string, records []Record, last bool) error {
	for _, rec := range records {
		l := rec.Label
		_, err := tx.ExecContext(ctx, `DELETE FROM tags WHERE sha256 = ? AND tag = ? AND version_id IN
			(SELECT version_id FROM uenv WHERE system = ? AND uarch = ? AND name = ? AND version = ?)`,
			sha, l.Tag, l.System, l.UArch, l.Name, l.Version)
		if err != nil {
			return err
		}
	}
	if last {
		if _, err := tx.ExecContext(ctx, "DELETE FROM images WHERE sha256 = ?", sha); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM uenv WHERE version_id NOT IN (SELECT version_id FROM tags)")
	return err
}

// removeFiles removes an image's files; the caller holds its lock. The directory
// loses its name first, so that no reader meets half of an image.
func (r *Repo) removeFiles(l *Lock) (found bool, freed int64, err error) {
	root, err := os.OpenRoot(r.images())
	if err != nil {
		return false, 0, err
	}
	defer root.Close()
	name := l.digest.Encoded()
	doomed := removedName(l.digest)
	if err := root.RemoveAll(doomed); err != nil { // left by a kill
		return false, 0, err
	}
	freed = diskUsage(filepath.Join(r.images(), name))
	err = root.Rename(name, doomed)
	if errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	return true, freed, root.RemoveAll(doomed)
}
