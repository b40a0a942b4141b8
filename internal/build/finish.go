package build

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// finish makes the store fit for an image: without what differs from one build
// to the next of the same inputs, and readable for everybody.
func (j *job) finish() error {
	root, err := os.OpenRoot(j.cell.store())
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case isVolatile(name):
			if err := root.RemoveAll(name); err != nil {
				return err
			}
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.Type().IsRegular():
			if err := settle(root, name); err != nil {
				return fmt.Errorf("make %s the same for every build: %w", name, err)
			}
		}
		return openUp(root, name, d)
	})
}

// openUp makes a file readable for all, and executable for all where it is for
// its owner or group.
func openUp(root *os.Root, name string, d fs.DirEntry) error {
	if !d.IsDir() && !d.Type().IsRegular() {
		return nil
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	mode := info.Mode() | 0o444
	if d.IsDir() || mode&0o110 != 0 {
		mode |= 0o111
	}
	if mode == info.Mode() {
		return nil
	}
	return root.Chmod(name, mode)
}

// volatileFiles are files of Spack, below its directory .spack of a package, that
// tell of one build: when, where and how long.
var volatileFiles = []string{
	"install_times.json", "install_environment.json",
	"spack-build-out.txt", "spack-build-out.txt.gz", "spack-build-env.txt", "spack-build-env-mods.txt",
}

// isVolatile tells whether a path of the store does not belong into an image.
// Byte code of package recipes is written by the Spack that reads them.
func isVolatile(name string) bool {
	dir, base := path.Split(name)
	switch top, _, _ := strings.Cut(name, "/"); {
	case base == "__pycache__" && (top == "repo" || top == "repos"):
		return true
	case path.Base(dir) == ".spack":
		return slices.Contains(volatileFiles, base)
	}
	return false
}

var (
	installationTime = regexp.MustCompile(`("installation_time": ?)[0-9.e+]+`)
	moduleStamp      = regexp.MustCompile(`(?m)^((?:##|--) *Module file created by spack.*) on [0-9].*$`)
)

// settle rewrites those files of Spack that hold the time of the build among
// things that are needed.
func settle(root *os.Root, name string) error {
	switch {
	case name == ".spack-db/index.json":
		return rewrite(root, name, func(data []byte) []byte {
			return installationTime.ReplaceAll(data, []byte("${1}"+sourceDateEpoch+".0"))
		})
	case name == ".spack-db/index_verifier":
		// A random name for the state of the index: Spack compares it only with
		// itself. WalkDir has come by index.json already.
		index, err := root.ReadFile(".spack-db/index.json")
		if err != nil {
			return err
		}
		sum := sha256.Sum256(index)
		return rewrite(root, name, func([]byte) []byte { return fmt.Appendf(nil, "%x", sum[:16]) })
	case strings.HasPrefix(name, "modules/"):
		return rewrite(root, name, func(data []byte) []byte {
			return moduleStamp.ReplaceAll(data, []byte("$1"))
		})
	}
	return nil
}

// rewrite replaces the content of a file, if it changes.
func rewrite(root *os.Root, name string, change func([]byte) []byte) error {
	old, err := root.ReadFile(name)
	if err != nil {
		return err
	}
	data := change(old)
	if bytes.Equal(data, old) {
		return nil
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	// A new file: the old one may be a link's only other name, or read-only.
	return errors.Join(root.Remove(name), root.WriteFile(name, data, info.Mode().Perm()))
}
