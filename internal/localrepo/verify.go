package localrepo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Condition is what is right or wrong with an image in the repository.
type Condition string

// The conditions of images.
const (
	Complete     Condition = "complete"     // right in size and, if it was read, in content
	MetaOnly     Condition = "meta-only"    // only its metadata was pulled
	Missing      Condition = "missing"      // labelled, but there are no files
	Truncated    Condition = "truncated"    // of another size than it must have
	Corrupt      Condition = "corrupt"      // of other content than it must have
	Unverifiable Condition = "unverifiable" // nothing says what its content must be, as after a pull by older clients
	Orphaned     Condition = "orphaned"     // no label names it
)

// Finding is the condition of one image.
type Finding struct {
	Digest    digest.Digest `json:"digest"`
	ID        string        `json:"id"`
	Condition Condition     `json:"condition"`
	Labels    []label.Label `json:"labels"`
	Size      int64         `json:"size"`             // on disk, bytes
	Detail    string        `json:"detail,omitempty"` // what was expected
}

// Bad tells whether something has to be repaired.
func (f Finding) Bad() bool {
	return f.Condition == Missing || f.Condition == Truncated || f.Condition == Corrupt
}

// VerifyOptions say how images are checked.
type VerifyOptions struct {
	Quick bool            // compare sizes only; otherwise all files are read
	Only  []digest.Digest // these images; nil is all
}

// Verify checks the images of the repository. An orphan's content is checked as
// well; it is reported as Orphaned if it is otherwise complete.
func (r *Repo) Verify(ctx context.Context, o VerifyOptions) ([]Finding, error) {
	all, err := r.inventory(ctx)
	if err != nil {
		return nil, err
	}
	var findings []Finding
	for _, item := range all {
		if o.Only != nil && !slices.Contains(o.Only, item.digest) {
			continue
		}
		f, err := r.check(ctx, item, o.Quick)
		if err != nil {
			return findings, explain(err, "verify image %s", label.ID(item.digest))
		}
		findings = append(findings, f)
	}
	return findings, nil
}

// item is an image of which the database or the directory of images knows.
type item struct {
	digest digest.Digest
	labels []label.Label
	size   int64 // as the database says; 0 if it does not know the image
	files  bool  // has a directory
}

// inventory lists all images by digest.
func (r *Repo) inventory(ctx context.Context) ([]item, error) {
	items := map[digest.Digest]*item{}
	at := func(d digest.Digest) *item {
		if items[d] == nil {
			items[d] = &item{digest: d}
		}
		return items[d]
	}
	records, err := r.records(ctx)
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		it := at(rec.Digest)
		it.labels, it.size = append(it.labels, rec.Label), rec.Size
	}
	if err := r.unlabelled(ctx, at); err != nil {
		return nil, explain(err, "read local repository %s", r.dir)
	}
	entries, err := os.ReadDir(r.images())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, explain(err, "read local repository %s", r.dir)
	}
	for _, e := range entries {
		if d := digest.NewDigestFromEncoded(digest.SHA256, e.Name()); e.IsDir() && checkDigest(d) == nil {
			at(d).files = true
		}
	}
	var all []item
	for _, it := range items {
		all = append(all, *it)
	}
	slices.SortFunc(all, func(a, b item) int { return strings.Compare(string(a.digest), string(b.digest)) })
	return all, nil
}

// unlabelled adds the images whose rows were left behind when their labels went
// to others.
func (r *Repo) unlabelled(ctx context.Context, at func(digest.Digest) *item) error {
	rows, err := r.db.QueryContext(ctx, "SELECT sha256, size FROM images WHERE sha256 NOT IN (SELECT sha256 FROM tags)")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var sha string
		var size int64
		if err := rows.Scan(&sha, &size); err != nil {
			return err
		}
		if d := digest.NewDigestFromEncoded(digest.SHA256, sha); checkDigest(d) == nil {
			at(d).size = size
		}
	}
	return rows.Err()
}

// check finds out the condition of an image.
func (r *Repo) check(ctx context.Context, it item, quick bool) (Finding, error) {
	f := Finding{Digest: it.digest, ID: label.ID(it.digest), Labels: it.labels}
	paths := r.Paths(it.digest)
	info, err := os.Lstat(paths.Image)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Condition = absent(paths, it)
		return f, nil
	case err != nil:
		return f, err
	case !info.Mode().IsRegular():
		f.Condition, f.Detail = Corrupt, imageName+" is not a regular file"
		return f, nil
	}
	f.Size = info.Size()
	want, known, err := r.expected(it)
	switch {
	case err != nil:
		f.Condition, f.Detail = Corrupt, err.Error()
	case want.size >= 0 && want.size != f.Size:
		f.Condition, f.Detail = Truncated, fmt.Sprintf("%d bytes, not %d", f.Size, want.size)
	default:
		f.Condition = Complete
		err := r.checkContent(ctx, &f, want, known, quick)
		if err != nil {
			return f, err
		}
	}
	if f.Condition == Complete && len(it.labels) == 0 {
		f.Condition = Orphaned
	}
	return f, nil
}

func absent(paths Paths, it item) Condition {
	_, err := os.Stat(paths.Meta)
	switch {
	case len(it.labels) == 0:
		return Orphaned
	case err == nil:
		return MetaOnly
	}
	return Missing
}

// identity is what is known of an image file beforehand.
type identity struct {
	digest digest.Digest
	size   int64 // -1 if unknown
}

// expected returns what an image must be. Without a manifest it may be an added
// one, whose digest is the file's own, or one pulled by a client that keeps no
// manifest: known is false.
func (r *Repo) expected(it item) (want identity, known bool, err error) {
	data, err := os.ReadFile(r.Paths(it.digest).Manifest)
	if errors.Is(err, fs.ErrNotExist) {
		size := it.size
		if size == 0 {
			size = -1
		}
		return identity{it.digest, size}, false, nil
	}
	if err == nil {
		err = same("manifest", digest.FromBytes(data), it.digest)
	}
	if err != nil {
		return identity{}, false, err
	}
	layer, err := imageLayer(data)
	return identity{layer.Digest, layer.Size}, true, err
}

func (r *Repo) checkContent(ctx context.Context, f *Finding, want identity, known, quick bool) error {
	if quick {
		return nil
	}
	const stage = "verify"
	r.events.Start(stage, "")
	var done int64
	got, err := HashFile(ctx, r.Paths(f.Digest).Image, func(n int) {
		done += int64(n)
		r.events.Progress(stage, done, f.Size, "B")
	})
	switch {
	case err != nil:
		return err
	case got == want.digest:
	case known:
		f.Condition, f.Detail = Corrupt, fmt.Sprintf("its digest is %s, not %s", got, want.digest)
	default:
		f.Condition, f.Detail = Unverifiable, "there is no "+manifestName+" to compare it with"
	}
	r.events.Done(stage, "image %s: %s", f.ID, f.Condition)
	return nil
}

// FileDigest returns what the digest of an image's store.squashfs must be. It is
// of kind fault.NotFound where nothing in the repository says so: an image
// without manifest is either identified by its file or was pulled by another
// client.
func (r *Repo) FileDigest(d digest.Digest) (digest.Digest, error) {
	want, known, err := r.expected(item{digest: d})
	if err != nil {
		return "", explain(err, "image %s", label.ID(d))
	}
	if !known {
		return "", fault.New(fault.NotFound, "image %s: there is no %s", label.ID(d), manifestName)
	}
	return want.digest, nil
}
