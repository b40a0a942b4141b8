package localrepo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"uenv-ci.dev/internal/fault"
)

// openDatabase opens the index with foreign keys on, since the client's schema
// removes an image's labels through them, and never with a write-ahead log,
// which network file systems do not support.
func openDatabase(path string, readOnly bool, busy time.Duration) (*sql.DB, error) {
	if busy == 0 {
		busy = defaultBusyTimeout
	}
	q := url.Values{}
	q.Set("mode", "rw")
	if readOnly {
		q.Set("mode", "ro")
	}
	q.Set("_txlock", "immediate")
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()))
	q.Add("_pragma", "foreign_keys(1)")
	db, err := sql.Open("sqlite", "file://"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// transact runs f in a transaction that has the right to write from its start.
func transact(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // SQLite may have done so; what keeps it from that is in err
		return err
	}
	return tx.Commit()
}

// explain says what was being done and, where the cause is known, what helps.
func explain(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	kind, hint := cause(err)
	err = fault.Wrap(kind, err, format, args...)
	if hint == "" {
		return err
	}
	return fault.WithHint(err, "%s", hint)
}

func cause(err error) (fault.Kind, string) {
	var e *sqlite.Error
	switch {
	case fault.HintOf(err) != "":
		return fault.KindOf(err), fault.HintOf(err)
	case errors.As(err, &e):
		return causeOf(e.Code() & 0xff)
	case errors.Is(err, syscall.EROFS):
		return fault.Failure, "the file system is read-only; use another repository with --repo"
	case errors.Is(err, fs.ErrPermission):
		return fault.Failure, "you may not write there; use a repository of your own with --repo"
	case errors.Is(err, syscall.ENOSPC):
		return fault.Failure, "the file system is full; 'uenv-ci repo du' and 'uenv-ci repo prune' show and free what is not needed"
	case errors.Is(err, syscall.EDQUOT):
		return fault.Failure, "your quota is used up; 'uenv-ci repo du' and 'uenv-ci repo prune' show and free what is not needed"
	}
	return fault.KindOf(err), ""
}

func causeOf(code int) (fault.Kind, string) {
	switch code {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fault.Failure, "another program has the repository's database locked; try again, and look for a hung process if that does not help"
	case sqlite3.SQLITE_READONLY:
		return fault.Failure, "the repository is read-only for you; use one of your own with --repo"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fault.Invalid, "the repository's database is damaged; move index.db away and pull again (images that are there are not downloaded twice)"
	case sqlite3.SQLITE_FULL:
		return fault.Failure, "the file system is full; 'uenv-ci repo du' and 'uenv-ci repo prune' show and free what is not needed"
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fault.Failure, "the repository's database cannot be opened; look at the permissions of its directory"
	case sqlite3.SQLITE_INTERRUPT:
		return fault.Interrupted, ""
	}
	return fault.Failure, ""
}
