package localrepo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/fault"
)

// schema is the uenv client's. It selects columns by name and relies on their
// declared types, so nothing may be added to it or differ in it.
var schema = []string{
	`CREATE TABLE images (
	sha256 TEXT PRIMARY KEY CHECK(length(sha256)==64),
	id TEXT UNIQUE CHECK(length(id)==16),
	date TEXT NOT NULL,
	size INTEGER NOT NULL)`,
	`CREATE TABLE uenv (
	version_id INTEGER PRIMARY KEY,
	system TEXT NOT NULL,
	uarch TEXT NOT NULL,
	name TEXT NOT NULL,
	version TEXT NOT NULL,
	UNIQUE (system, uarch, name, version))`,
	`CREATE TABLE tags (
	version_id INTEGER,
	tag TEXT NOT NULL,
	sha256 TEXT NOT NULL,
	PRIMARY KEY (version_id, tag),
	FOREIGN KEY (version_id) REFERENCES uenv (version_id) ON DELETE CASCADE ON UPDATE CASCADE,
	FOREIGN KEY (sha256) REFERENCES images (sha256) ON DELETE CASCADE ON UPDATE CASCADE)`,
	`CREATE VIEW records AS SELECT
	uenv.system AS system, uenv.uarch AS uarch, uenv.name AS name, uenv.version AS version,
	tags.tag AS tag, images.date AS date, images.size AS size, tags.sha256 AS sha256, images.id AS id
	FROM tags
	INNER JOIN uenv ON uenv.version_id = tags.version_id
	INNER JOIN images ON images.sha256 = tags.sha256`,
	`CREATE TRIGGER delete_orphan_uenv AFTER DELETE ON tags FOR EACH ROW BEGIN
	DELETE FROM uenv WHERE version_id NOT IN (SELECT DISTINCT version_id FROM tags);
	END`,
	`CREATE TRIGGER delete_orphan_image AFTER DELETE ON tags FOR EACH ROW BEGIN
	DELETE FROM images WHERE sha256 NOT IN (SELECT DISTINCT sha256 FROM tags);
	END`,
}

// create makes a repository unless there is one. The database gets its name only
// when it is complete, so that no other program, and no later run after a kill,
// meets one without tables.
func create(ctx context.Context, dir string, o Options) error {
	path := filepath.Join(dir, databaseName)
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	_, mode, err := modes(dir)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, "."+databaseName+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if err := errors.Join(temp.Chmod(mode), temp.Close()); err != nil {
		return err
	}
	if err := createTables(ctx, temp.Name(), o); err != nil {
		return err
	}
	err = os.Link(temp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		// Another process was faster, or one was killed before it made the
		// tables: this does nothing in the first case.
		return createTables(ctx, path, o)
	}
	return err
}

func createTables(ctx context.Context, path string, o Options) error {
	db, err := openDatabase(path, false, o.BusyTimeout)
	if err != nil {
		return err
	}
	defer db.Close()
	return transact(ctx, db, func(tx *sql.Tx) error {
		var tables int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&tables); err != nil || tables > 0 {
			return err
		}
		for _, statement := range schema {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("create the tables: %w", err)
			}
		}
		return nil
	})
}

// checkSchema refuses a database of another program. Triggers may be missing, as
// in repositories made before November 2024.
func checkSchema(ctx context.Context, db *sql.DB) error {
	var found int
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master
		WHERE (type, name) IN (('table','images'), ('table','uenv'), ('table','tags'), ('view','records'))`).Scan(&found)
	if err == nil && found != 4 {
		err = fault.New(fault.Invalid, "%s is not the database of a uenv repository", databaseName)
	}
	return err
}
