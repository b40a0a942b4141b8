package evidence

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of the output of single tests that is kept.
const (
	maxOutput  = 256 << 10 // bytes of the end of one file
	maxOutputs = 200       // files
)

// keepOutputs copies what failed tests wrote, which ReFrame leaves in its stage
// directory, to the logs. Names and links below the work directory are the
// tests' own, so nothing outside is followed.
func (l layout) keepOutputs() error {
	work, err := os.OpenRoot(l.work)
	if err != nil {
		return fmt.Errorf("keep the output of tests: %w", err)
	}
	defer work.Close()
	root, err := work.OpenRoot(path.Join(outDir, "stage"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep the output of tests: %w", err)
	}
	defer root.Close()
	kept := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !isOutput(path.Base(name)) {
			return nil // unreadable directories of tests are not our concern
		}
		if kept++; kept > maxOutputs {
			return fs.SkipAll
		}
		return l.keep(root, name)
	})
	if err != nil {
		return fmt.Errorf("keep the output of tests: %w", err)
	}
	return nil
}

// isOutput tells ReFrame's own files from those of the tests.
func isOutput(name string) bool {
	return strings.HasPrefix(name, "rfm_") && slices.Contains([]string{".out", ".err", ".sh"}, path.Ext(name))
}

func (l layout) keep(root *os.Root, name string) error {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would be waited for
	if err != nil {
		return nil // it was there a moment ago
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if info.Size() > maxOutput {
		if _, err := f.Seek(-maxOutput, io.SeekEnd); err != nil {
			return err
		}
	}
	to := filepath.Join(l.logs, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, f, maxOutput)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, out.Close())
}
