package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackagesLeaveNoIndexes has a package of a protected build put indexes of another
// Spack among the sources, which later builds would believe.
func TestPackagesLeaveNoIndexes(t *testing.T) {
	host, sources := t.TempDir(), t.TempDir()
	const commit = "_source-cache/git/x/commit.tar.gz"
	index := filepath.Join(indexDir, "0123456789", indexFiles[0])
	for _, name := range []string{index, commit} {
		file := filepath.Join(host, fetchedDir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := &spackBuild{job: &job{Options: &Options{SourceCache: sources, Protected: true}, cell: &cell{host: host}}}
	b.saveSources()
	if _, err := os.Lstat(filepath.Join(sources, commit)); err != nil {
		t.Errorf("a source is not saved: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(sources, index)); err == nil {
		t.Error("the index is saved")
	}
}

// A build cache is found also where its directory looks like a pattern.
func TestCacheInAnOddDirectory(t *testing.T) {
	hash := strings.Repeat("a", 32)
	dir := filepath.Join(t.TempDir(), "cache[1]")
	file := filepath.Join(dir, "build_cache", "linux-x-1-"+hash+".spec.json.sig")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if !hasBinary([]buildCache{{dir: dir}}, hash) || hasBinary([]buildCache{{dir: t.TempDir()}}, hash) {
		t.Error("a package is not found, or where there is none")
	}
}
