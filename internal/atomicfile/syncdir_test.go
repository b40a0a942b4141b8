package atomicfile

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// TestSyncDirWhereThatIsNotPossible takes /proc for the file systems, such as
// some of networks, that refuse to sync a directory.
func TestSyncDirWhereThatIsNotPossible(t *testing.T) {
	const dir = "/proc"
	d, err := os.Open(dir)
	if err != nil {
		t.Skip(err)
	}
	defer d.Close()
	if err := d.Sync(); !errors.Is(err, syscall.EINVAL) {
		t.Skipf("%s can be synced: %v", dir, err)
	}
	if err := SyncDir(dir); err != nil {
		t.Error(err)
	}
}
