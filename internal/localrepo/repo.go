// Package localrepo is the users' local repository: the directory into which
// images are pulled. Its layout and its database are those of the uenv client,
// so that both programs share one repository.
//
//	DIR/index.db                            which labels name which image
//	DIR/images/<sha256>/store.squashfs      an image
//	DIR/images/<sha256>/meta/env.json       what is inside it
//	DIR/images/<sha256>/manifest.json       its raw manifest (ours)
//	DIR/images/<sha256>.lock                flock of whoever changes the image
//	DIR/images/.<sha256>.partial/           an image on its way in (ours)
package localrepo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

const (
	databaseName = "index.db"
	imagesName   = "images"
	imageName    = "store.squashfs"
	metaName     = "meta"
	manifestName = "manifest.json"

	defaultBusyTimeout = 10 * time.Second
)

// Options for Open. The zero value opens an existing repository for reading and
// writing.
type Options struct {
	Create      bool          // make the repository if there is none
	ReadOnly    bool          // never write; all that a shared, read-only repository allows
	BusyTimeout time.Duration // how long to wait for a locked database; 0 = 10 s
	Striping    Striping      // of images on Lustre
	Events      event.Sink
}

// Repo is an open local repository. It may be used by several goroutines.
type Repo struct {
	dir      string
	readOnly bool
	db       *sql.DB
	events   event.Sink
	stripes  Striping
	now      func() time.Time
	fsType   func(path string) int64 // statfs magic
	dirMode  fs.FileMode             // of new directories: those of the repository itself
	fileMode fs.FileMode             // of new files: the same without execution
}

// Paths are the files of one image.
type Paths struct {
	Dir      string // images/<sha256>
	Image    string // store.squashfs
	Meta     string // the directory with env.json
	Manifest string // manifest.json
	Lock     string // <sha256>.lock
}

// Open opens the repository in dir. A missing one is of kind fault.NotFound
// unless o.Create.
func Open(ctx context.Context, dir string, o Options) (*Repo, error) {
	dir, err := checkPath(dir, o.Events)
	if err != nil {
		return nil, err
	}
	if o.Create && !o.ReadOnly {
		if err := create(ctx, dir, o); err != nil {
			return nil, explain(err, "create local repository %s", dir)
		}
	}
	info, err := os.Stat(filepath.Join(dir, databaseName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.WithHint(fault.New(fault.NotFound, "there is no local repository at %s", dir),
			"pull an image to create it, or name another with --repo")
	case err != nil:
		return nil, explain(err, "open local repository %s", dir)
	case !info.Mode().IsRegular():
		return nil, fault.New(fault.Invalid, "open local repository %s: %s is not a regular file", dir, databaseName)
	}
	r := &Repo{dir: dir, readOnly: o.ReadOnly, events: o.Events, stripes: o.Striping, now: time.Now, fsType: fsType}
	if r.dirMode, r.fileMode, err = modes(dir); err != nil {
		return nil, explain(err, "open local repository %s", dir)
	}
	if r.db, err = openDatabase(filepath.Join(dir, databaseName), o.ReadOnly, o.BusyTimeout); err != nil {
		return nil, explain(err, "open local repository %s", dir)
	}
	if err := checkSchema(ctx, r.db); err != nil {
		r.db.Close()
		return nil, explain(err, "open local repository %s", dir)
	}
	return r, nil
}

// Close releases the database.
func (r *Repo) Close() error { return r.db.Close() }

// Dir returns the repository's absolute path.
func (r *Repo) Dir() string { return r.dir }

// ReadOnly tells whether the repository was opened for reading only.
func (r *Repo) ReadOnly() bool { return r.readOnly }

// Paths returns where the files of an image are, whether or not they exist. The
// digest must be a valid sha256 digest.
func (r *Repo) Paths(d digest.Digest) Paths {
	dir := filepath.Join(r.images(), d.Encoded())
	return Paths{
		Dir:      dir,
		Image:    filepath.Join(dir, imageName),
		Meta:     filepath.Join(dir, metaName),
		Manifest: filepath.Join(dir, manifestName),
		Lock:     dir + ".lock",
	}
}

func (r *Repo) images() string { return filepath.Join(r.dir, imagesName) }

// writable returns an error if the repository was opened for reading only.
func (r *Repo) writable() error {
	if r.readOnly {
		return fault.New(fault.Failure, "the local repository %s is open for reading only", r.dir)
	}
	return nil
}

// mkImages makes the directory of images if it is missing.
func (r *Repo) mkImages() error {
	err := os.Mkdir(r.images(), r.dirMode.Perm())
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(r.images(), r.dirMode)
	}
	return err
}

// checkPath makes dir absolute and refuses what clients cannot mount from: the
// list of mounts that they pass on separates its parts by ',' and ':'.
func checkPath(dir string, events event.Sink) (string, error) {
	if dir == "" {
		return "", fault.New(fault.Usage, "the path of the local repository is empty")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("local repository: %w", err)
	}
	odd := func(c rune) bool {
		return c == ',' || c == ':' || unicode.IsSpace(c) || unicode.IsControl(c)
	}
	if i := strings.IndexFunc(dir, odd); i >= 0 {
		return "", fault.WithHint(
			fault.New(fault.Usage, "the local repository's path %q contains %q", dir, []rune(dir[i:])[0]),
			"images cannot be mounted from a path with commas, colons or blanks")
	}
	if !UsableByClient(dir) {
		events.Warn("repository", "the uenv client cannot use the path %s: it knows letters, digits and the characters / . _ - only", dir)
	}
	return dir, nil
}

// UsableByClient tells whether a path fits the uenv client's grammar of paths.
func UsableByClient(path string) bool {
	return !strings.ContainsFunc(path, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("/._-", c)
	})
}

// modes returns the modes of new directories and files: what a shared repository
// allows its group, and the setgid bit that keeps the group, follow from its own
// directory.
func modes(dir string) (dirMode, fileMode fs.FileMode, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0, err
	}
	dirMode = info.Mode()&(fs.ModePerm|fs.ModeSetgid) | 0o700
	return dirMode, dirMode & 0o666, nil
}
