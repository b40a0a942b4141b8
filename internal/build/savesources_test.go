package build

import (
	"os"
	"path/filepath"
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
