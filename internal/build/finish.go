package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/spack"
)

// finish makes the store fit for an image: without what differs from one build
// to the next of the same inputs, and readable for everybody.
func (j *job) finish() error {
	root := j.cell.stored
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
func openUp(root foreign, name string, d fs.DirEntry) error {
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

// volatileFiles are files of Spack, in its directory .spack of a package or below
// that of a view, that tell of one build: when, where and how long.
var volatileFiles = []string{
	"install_times.json", "install_environment.json",
	"spack-build-out.txt", "spack-build-out.txt.gz", "spack-build-env.txt", "spack-build-env-mods.txt",
	"binary_distribution", // that a package came from a build cache
}

// isVolatile tells whether a path of the store does not belong into an image.
// Byte code of package recipes is written by the Spack that reads them.
func isVolatile(name string) bool {
	dir, base := path.Dir(name), path.Base(name)
	if base == "__pycache__" {
		top, _, _ := strings.Cut(name, "/")
		return top == "repo" || top == "repos"
	}
	inSpack := path.Base(dir) == ".spack" || path.Base(path.Dir(dir)) == ".spack"
	return inSpack && slices.Contains(volatileFiles, base)
}

var (
	installationTime = regexp.MustCompile(`("installation_time": ?)[0-9.e+]+`)
	moduleStamp      = regexp.MustCompile(`(?m)^((?:##|--) *Module file created by spack.*) on [0-9].*$`)
)

// settle rewrites those files of Spack that hold the time of the build among
// things that are needed.
func settle(root foreign, name string) error {
	switch {
	case name == spack.DatabaseFile:
		return rewrite(root, name, func(data []byte) []byte {
			return sortInstalls(installationTime.ReplaceAll(data, []byte("${1}"+sourceDateEpoch+".0")))
		})
	case name == ".spack-db/index_verifier":
		// A random name for the state of the index: Spack compares it only with
		// itself. WalkDir has come by index.json already.
		index, err := root.read(spack.DatabaseFile)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(index)
		return rewrite(root, name, func([]byte) []byte { return fmt.Appendf(nil, "%x", sum[:16]) })
	case path.Base(name) == "install_manifest.json" && path.Base(path.Dir(name)) == ".spack":
		return rewrite(root, name, settleManifest)
	case strings.HasPrefix(name, "modules/"):
		return rewrite(root, name, func(data []byte) []byte {
			return moduleStamp.ReplaceAll(data, []byte("$1"))
		})
	}
	return nil
}

// sortInstalls puts the packages of Spack's database, which has them as they were
// finished, in the order of their hashes.
func sortInstalls(data []byte) []byte {
	var index struct {
		Database struct {
			Version  json.RawMessage            `json:"version"`
			Installs map[string]json.RawMessage `json:"installs"`
		} `json:"database"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&index) != nil {
		return data
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(index) != nil {
		return data
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// imageOwner is the user and group that own every file of an image.
const imageOwner = 65534

// settleManifest makes an install manifest, which lists the files of a package in
// the order in which the file system has them, agree with what is in an image.
func settleManifest(data []byte) []byte {
	var entries map[string]map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if decoder.Decode(&entries) != nil {
		return data
	}
	for name, entry := range entries {
		if isVolatile(name) {
			delete(entries, name)
			continue
		}
		for key, value := range map[string]any{"time": json.Number(sourceDateEpoch + ".0"), "owner": imageOwner, "group": imageOwner} {
			if _, ok := entry[key]; ok {
				entry[key] = value
			}
		}
	}
	sorted, err := json.Marshal(entries)
	if err != nil {
		return data
	}
	return sorted
}

// rewrite replaces the content of a file, if it changes.
func rewrite(root foreign, name string, change func([]byte) []byte) error {
	old, err := root.read(name)
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
	return root.write(name, data, info.Mode().Perm())
}
