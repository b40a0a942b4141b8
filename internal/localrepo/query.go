package localrepo

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Find returns the records that match a pattern, in the client's order. Empty
// parts match everything. With prefix the name needs only to begin with the
// pattern's. A pattern that is only a name may also be an id (16 digits) or a
// digest (64 digits, or sha256: and 64 digits).
func (r *Repo) Find(ctx context.Context, pattern label.Label, prefix bool) ([]Record, error) {
	all, err := r.records(ctx)
	if err != nil {
		return nil, err
	}
	pattern.Namespace = "" // the repository knows none
	return slices.DeleteFunc(all, func(rec Record) bool {
		return !rec.Label.Match(pattern, prefix) && !rec.Label.MatchDigest(pattern, rec.Digest)
	}), nil
}

// Lookup returns the records of the one image that a label, id or digest names.
// None is of kind fault.NotFound, several images are fault.Usage.
func (r *Repo) Lookup(ctx context.Context, pattern label.Label) ([]Record, error) {
	found, err := r.Find(ctx, pattern, false)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.WithHint(fault.New(fault.NotFound, "%s is not in the local repository %s", pattern, r.dir),
			"'uenv-ci ls' lists what is there; 'uenv-ci pull' fetches an image")
	}
	for _, rec := range found {
		if rec.Digest != found[0].Digest {
			return nil, fault.WithHint(fault.New(fault.Usage, "%s is ambiguous: %s", pattern, candidates(found)),
				"add the missing parts of the label, or name the image by its id")
		}
	}
	return found, nil
}

// candidates lists the first few records for an error.
func candidates(found []Record) string {
	const most = 8
	var texts []string
	for i, rec := range found {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(found)-most))
			break
		}
		texts = append(texts, fmt.Sprintf("%s (%s)", rec.Label, rec.ID))
	}
	return strings.Join(texts, ", ")
}

// querier is the index, or a transaction of it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// records reads all records in the client's order.
func (r *Repo) records(ctx context.Context) ([]Record, error) { return r.recordsIn(ctx, r.db) }

func (r *Repo) recordsIn(ctx context.Context, q querier) ([]Record, error) {
	rows, err := q.QueryContext(ctx, "SELECT system, uarch, name, version, tag, date, size, sha256, COALESCE(id, substr(sha256, 1, 16)) FROM records")
	if err != nil {
		return nil, explain(err, "read local repository %s", r.dir)
	}
	defer rows.Close()
	var all []Record
	for rows.Next() {
		var rec Record
		var date, sha string
		l := &rec.Label
		if err := rows.Scan(&l.System, &l.UArch, &l.Name, &l.Version, &l.Tag, &date, &rec.Size, &sha, &rec.ID); err != nil {
			return nil, explain(err, "read local repository %s", r.dir)
		}
		rec.Digest = digest.NewDigestFromEncoded(digest.SHA256, sha)
		if err := checkDigest(rec.Digest); err != nil {
			r.events.Warn("repository", "%s is skipped: its image %q is not a sha256 digest", rec.Label, sha)
			continue
		}
		var ok bool
		if rec.Date, ok = parseDate(date); !ok || !label.ClientReads(rec.Date) {
			r.events.Warn("repository", "%s: %q is no date that the uenv client reads: it cannot list this repository", rec.Label, date)
		}
		all = append(all, rec)
	}
	if err := rows.Err(); err != nil {
		return nil, explain(err, "read local repository %s", r.dir)
	}
	slices.SortFunc(all, compare)
	return all, nil
}
