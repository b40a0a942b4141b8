package bounded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

func TestReadAll(t *testing.T) {
	if data, err := ReadAll(strings.NewReader("1234"), 4); string(data) != "1234" || err != nil {
		t.Errorf("got %q, %v", data, err)
	}
	if data, err := ReadAll(strings.NewReader("12345"), 4); data != nil || fault.KindOf(err) != fault.Invalid || err.Error() != "it is larger than 4 bytes" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := ReadAll(strings.NewReader(strings.Repeat("x", 1<<20+1)), 1<<20); err == nil || err.Error() != "it is larger than 1 MiB" {
		t.Errorf("got %v", err)
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadFile(file, 4); string(data) != "text" || err != nil {
		t.Errorf("got %q, %v", data, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if data, err := ReadFileIn(root, "file", 4); string(data) != "text" || err != nil {
		t.Errorf("got %q, %v", data, err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadFileIn(root, "link", 1<<20); err == nil {
		t.Errorf("followed a link: %q", data)
	}
	for name, path := range map[string]string{"too large": file, "a directory": dir, "a pipe that nobody writes to": pipe} {
		if data, err := ReadFile(path, 3); data != nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %q, %v", name, data, err)
		}
	}
	if _, err := ReadFile(filepath.Join(dir, "none"), 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
