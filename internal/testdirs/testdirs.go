// Package testdirs finds directories that tests need.
package testdirs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Corpus returns a part, "." for the whole, of the directory of real recipes, cluster
// configurations and output of stackinator, which UENV_CI_CORPUS names. The test is
// skipped where that is not there.
func Corpus(t testing.TB, part string) string {
	t.Helper()
	dir := os.Getenv("UENV_CI_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	dir, err := filepath.Abs(filepath.Join(dir, part))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no corpus: set UENV_CI_CORPUS to its directory")
	}
	return dir
}

// Visible returns a new directory that a sandbox does not hide, as it hides homes and
// places for temporary files. Checkouts often are in one of those.
func Visible(t testing.TB) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	home, _ := os.UserHomeDir()
	hides := func(dir string) bool {
		return slices.ContainsFunc([]string{"/tmp", "/var/tmp", "/dev", "/run", "/root", "/home", home}, func(hidden string) bool {
			return hidden != "" && strings.HasPrefix(dir+"/", hidden+"/")
		})
	}
	for _, place := range []string{here, "/srv", "/opt", "/mnt"} {
		if hides(place) {
			continue
		}
		if dir, err := os.MkdirTemp(place, "test-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return dir
		}
	}
	t.Skip("no place for the test: sandboxes hide that of the checkout, and others cannot be written to")
	return ""
}
