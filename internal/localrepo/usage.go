package localrepo

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Usage is what an image takes on disk.
type Usage struct {
	Finding
	Bytes int64 `json:"bytes"` // all of its files
	// LastUsed is when the image was last read, pulled or labelled, as far as the
	// file system keeps it, which is mostly to the day; zero if there are no files.
	LastUsed time.Time `json:"last_used"`
}

// Du lists the images by what they take on disk, the largest first.
func (r *Repo) Du(ctx context.Context) ([]Usage, error) {
	findings, err := r.Verify(ctx, VerifyOptions{Quick: true})
	if err != nil {
		return nil, err
	}
	var all []Usage
	for _, f := range findings {
		all = append(all, Usage{f, diskUsage(r.Paths(f.Digest).Dir), r.lastUsed(f.Digest)})
	}
	slices.SortStableFunc(all, func(a, b Usage) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return all, nil
}

// Status sums up a repository.
type Status struct {
	Path       string         `json:"path"`
	Writable   bool           `json:"writable"`
	FileSystem string         `json:"file_system"` // "lustre" or "other"
	Labels     int            `json:"labels"`
	Images     int            `json:"images"`
	Bytes      int64          `json:"bytes"`       // of all images
	Reclaim    int64          `json:"reclaimable"` // bytes that Prune would free
	Space      Space          `json:"space"`
	Bad        map[string]int `json:"bad"` // how many images are in which bad condition
}

// Status looks at sizes only.
func (r *Repo) Status(ctx context.Context) (Status, error) {
	all, err := r.Du(ctx)
	if err != nil {
		return Status{}, err
	}
	left, err := r.Prune(ctx, PruneOptions{Dry: true})
	if err != nil {
		return Status{}, err
	}
	s := Status{Path: r.dir, Writable: writableBy(r.dir), FileSystem: "other", Space: spaceOf(r.dir), Bad: map[string]int{}}
	if r.onLustre() {
		s.FileSystem = "lustre"
	}
	for _, u := range all {
		s.Labels += len(u.Labels)
		s.Images++
		s.Bytes += u.Bytes
		if u.Bad() || u.Condition == Orphaned {
			s.Bad[string(u.Condition)]++
		}
	}
	for _, l := range left {
		s.Reclaim += l.Bytes
	}
	return s, nil
}
