package stack

import (
	"fmt"
	"io"
	"os"
)

// Write writes the tree below the directory root, which is made if missing:
// its directories, files and copies, but not its clones. Nothing is written
// outside root. Links in what is copied are followed as long as they stay
// inside the git repository (or, without one, the directory) they are in.
func (t *Tree) Write(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("create the build tree: %w", err)
	}
	dst, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open the build tree: %w", err)
	}
	defer dst.Close()
	if err := t.write(dst); err != nil {
		return fmt.Errorf("write the build tree: %w", err)
	}
	return nil
}

func (t *Tree) write(dst *os.Root) error {
	for _, c := range t.Copies { // what an earlier run left behind
		if err := dst.RemoveAll(c.To); err != nil {
			return err
		}
	}
	at, err := newCursor(dst)
	if err != nil {
		return err
	}
	defer at.close()
	for _, dir := range t.Dirs {
		if _, err := at.enter(dir); err != nil {
			return err
		}
	}
	for _, f := range t.Files {
		if err := f.write(at); err != nil {
			return err
		}
	}
	if err := copyAll(at, t.Copies); err != nil {
		return err
	}
	for _, c := range t.Copies {
		if err := c.hideSecrets(dst); err != nil {
			return err
		}
	}
	return nil
}

func (f File) write(at *cursor) error {
	return at.create(f.Path, f.Mode, func(out io.Writer) error {
		_, err := out.Write(f.Data)
		return err
	})
}
