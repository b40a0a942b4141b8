package mount

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/scratch"
)

// makePoint makes the mount point on the host where it is missing and the
// sandbox could not show it otherwise: where it is in a directory into which
// the user writes, or if it is needed in any case.
func makePoint(w *scratch.Dir, point string, needed bool) error {
	var missing []string
	parent := point
	for {
		if _, err := os.Stat(parent); err == nil {
			break
		}
		missing = append(missing, parent)
		parent = filepath.Dir(parent)
	}
	if !needed && (parent == "/" || unix.Access(parent, unix.W_OK) != nil) {
		return nil
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := w.Note(missing[i]); err != nil {
			return err
		}
		if err := os.Mkdir(missing[i], 0o755); err != nil {
			return fmt.Errorf("without bubblewrap the mount point must be a directory that can be made: %w", err)
		}
	}
	return nil
}

// linkPoint makes the mount point a link to the content.
func linkPoint(w *scratch.Dir, point string) error {
	if err := makePoint(w, filepath.Dir(point), true); err != nil {
		return err
	}
	if err := w.Note(point); err != nil {
		return err
	}
	if err := os.Symlink(w.Path(), point); err != nil {
		return fmt.Errorf("without bubblewrap the mount point must be one that can be made: %w", err)
	}
	return nil
}
