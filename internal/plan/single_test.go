package plan

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// The value is that of: find . -type f | cut -c3- | LC_ALL=C sort | xargs sha256sum | sha256sum
func TestDirHash(t *testing.T) {
	a, b := fmt.Sprintf("%x", sha256.Sum256([]byte("a\n"))), fmt.Sprintf("%x", sha256.Sum256([]byte("b\n")))
	got := DirHash([]FileDigest{{"sub/", directory}, {"sub/b", b + " executable"}, {"a", a}})
	if want := "d4a2a9bc060736f3896d67d7168e1efcffaca4339212c1d8efdc65f0a0ba311b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
