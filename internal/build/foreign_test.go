package build

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestForeign reads and writes where a stranger has prepared the names.
func TestForeign(t *testing.T) {
	base := t.TempDir()
	outside, inside := filepath.Join(base, "outside"), filepath.Join(base, "inside")
	if err := errors.Join(
		os.Mkdir(outside, 0o755), os.Mkdir(inside, 0o755),
		os.WriteFile(filepath.Join(outside, "file"), []byte("kept"), 0o600),
		os.WriteFile(filepath.Join(inside, "plain"), []byte("text"), 0o600),
		os.WriteFile(filepath.Join(inside, "large"), nil, 0o600),
		os.Truncate(filepath.Join(inside, "large"), maxForeign+1),
		os.Symlink(filepath.Join(outside, "file"), filepath.Join(inside, "link")),
		os.Symlink("plain", filepath.Join(inside, "own")),
		os.Symlink("../outside", filepath.Join(inside, "dir")),
		unix.Mkfifo(filepath.Join(inside, "pipe"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	d, err := openForeign(inside)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if text, err := d.read("plain"); err != nil || string(text) != "text" {
		t.Errorf("a regular file: %q, %v", text, err)
	}
	for _, name := range []string{"link", "own", "pipe", "large", "dir", "dir/file", ".", "../outside/file"} {
		if _, err := d.read(name); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	for _, name := range []string{"link", "own", "pipe", "new/file"} {
		if err := d.write(name, []byte("ours"), 0o644); err != nil {
			t.Errorf("write %s: %v", name, err)
		}
		if text, err := d.read(name); err != nil || string(text) != "ours" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if err := d.write("dir/file", []byte("ours"), 0o644); err == nil {
		t.Error("a file outside was written")
	}
	if text, err := os.ReadFile(filepath.Join(outside, "file")); err != nil || string(text) != "kept" {
		t.Errorf("the file outside: %q, %v", text, err)
	}
	if text, err := d.read("plain"); err != nil || string(text) != "text" {
		t.Errorf("the file that a link named: %q, %v", text, err)
	}
	if err := d.isAt(inside); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Rename(inside, inside+".old"), os.Symlink(outside, inside)); err != nil {
		t.Fatal(err)
	}
	if err := d.isAt(inside); err == nil {
		t.Error("another directory is taken for the same")
	}
}
