package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// Reproducibility says whether two builds of the same made the same.
type Reproducibility struct {
	Same    bool         `json:"same"`
	Files   int          `json:"files"`   // files, directories and links of the first
	Seconds float64      `json:"seconds"` // that the second build took
	Differ  []Difference `json:"differ"`  // sorted by path; empty for a restricted image
}

// Difference is a file of a store that differs between two builds.
type Difference struct {
	Path string `json:"path"` // below the mount point
	// What is "content", "mode", "link", "kind", "only in the first" or "only in
	// the second".
	What   string `json:"what"`
	First  string `json:"first,omitempty"` // digest and size, mode, link or kind
	Second string `json:"second,omitempty"`
}

// fileState is what a build can make different of a file. Times and owners are
// not in an image.
type fileState struct {
	mode   fs.FileMode
	size   int64
	sha256 string
	link   string
}

// listFiles describes everything in a store. Links are not followed.
func listFiles(ctx context.Context, store string) (map[string]fileState, error) {
	root, err := os.OpenRoot(store)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	found := map[string]fileState{}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		found[name], err = stateOf(root, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the files of the build: %w", err)
	}
	return found, nil
}

func stateOf(root *os.Root, name string) (s fileState, err error) {
	info, err := root.Lstat(name)
	if err != nil {
		return s, err
	}
	s.mode = info.Mode()
	switch {
	case s.mode.Type() == fs.ModeSymlink:
		s.mode = fs.ModeSymlink // permissions of links mean nothing
		s.link, err = root.Readlink(name)
		return s, err
	case !s.mode.IsRegular():
		return s, nil
	}
	f, err := root.Open(name)
	if err != nil {
		return s, err
	}
	defer f.Close()
	sum := sha256.New()
	s.size, err = io.Copy(sum, f)
	s.sha256 = hex.EncodeToString(sum.Sum(nil))
	return s, err
}

// compareFiles tells what differs between two stores.
func compareFiles(first, second map[string]fileState) []Difference {
	differ := []Difference{}
	for _, path := range slices.Sorted(maps.Keys(first)) {
		was := first[path]
		now, ok := second[path]
		switch {
		case !ok:
			differ = append(differ, Difference{Path: path, What: "only in the first"})
		case was.mode.Type() != now.mode.Type():
			differ = append(differ, Difference{path, "kind", was.mode.String(), now.mode.String()})
		case was.link != now.link:
			differ = append(differ, Difference{path, "link", was.link, now.link})
		case was.sha256 != now.sha256:
			differ = append(differ, Difference{path, "content", was.content(), now.content()})
		case was.mode != now.mode:
			differ = append(differ, Difference{path, "mode", was.mode.String(), now.mode.String()})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(second)) {
		if _, ok := first[path]; !ok {
			differ = append(differ, Difference{Path: path, What: "only in the second"})
		}
	}
	slices.SortStableFunc(differ, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return differ
}

func (s fileState) content() string { return fmt.Sprintf("sha256:%s %d bytes", s.sha256, s.size) }

// verify builds once more, without any build cache: what comes from a cache would
// prove nothing. Files that differ are an error.
func (b *imageBuild) verify(ctx context.Context) error {
	b.Pack.Events.Info("verify", "building again to compare")
	o := b.Build
	o.NoBuildCache, o.LogDir = true, ""
	again, err := o.run(ctx, b.in, nil)
	if err != nil {
		return fmt.Errorf("the second build, without build caches: %w", err)
	}
	defer again.Close()
	second, err := listFiles(ctx, again.Store)
	if err != nil {
		return err
	}
	r := &Reproducibility{Files: len(b.first), Seconds: again.Report.Seconds, Differ: compareFiles(b.first, second)}
	r.Same = len(r.Differ) == 0
	b.done.Reproducible = r
	if r.Same {
		b.Pack.Events.Done("verify", "both builds made the same %d files", r.Files)
		return again.Close()
	}
	n := len(r.Differ)
	if b.Build.Restricted {
		r.Differ = []Difference{}
	}
	return notReproducible(n, r.Differ)
}

// maxNamed is how many files an error names.
const maxNamed = 10

func notReproducible(n int, differ []Difference) error {
	text := fmt.Sprintf("not reproducible: two builds differ in %d files", n)
	if n == 1 {
		text = "not reproducible: two builds differ in one file"
	}
	for _, d := range differ[:min(len(differ), maxNamed)] {
		text += "\n  " + d.Path + ": " + d.What
	}
	if more := len(differ) - maxNamed; more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	return fault.WithHint(fault.New(fault.Failure, "%s", text), "times, random numbers, paths of the build, or the order of a directory; SOURCE_DATE_EPOCH is set")
}
