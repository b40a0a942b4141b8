package pipeline

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"uenv-ci.dev/clusters"
	"uenv-ci.dev/recipes"
)

// extractExample writes an example recipe, "NAME/VERSION", that is part of the
// program below dir and returns its directory.
func extractExample(name, dir string) (string, error) {
	return extract(recipes.Files, name, dir)
}

// extractCluster does the same for an example cluster configuration.
func extractCluster(name, dir string) (string, error) {
	return extract(clusters.Files, name, dir)
}

func extract(files fs.FS, name, dir string) (string, error) {
	err := fs.WalkDir(files, name, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		data, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, modeOf(data))
	})
	if err != nil {
		return "", fmt.Errorf("write example %s: %w", name, err)
	}
	return filepath.Join(dir, filepath.FromSlash(name)), nil
}

// modeOf restores what embedding loses: scripts are executable.
func modeOf(data []byte) fs.FileMode {
	if bytes.HasPrefix(data, []byte("#!")) {
		return 0o755
	}
	return 0o644
}
