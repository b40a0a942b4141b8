package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/bounded"
)

// cacheIndex is the index of a build cache, as Spack 0.22 and 0.23 write it: all
// packages that it has, and those that they depend on.
type cacheIndex struct {
	Database struct {
		Version  string                  `json:"version"`
		Installs map[string]*indexRecord `json:"installs"`
	} `json:"database"`
}

type indexRecord struct {
	Spec     json.RawMessage `json:"spec"`
	RefCount int             `json:"ref_count"` // packages of the index that depend on it
	InCache  bool            `json:"in_buildcache"`
}

// indexVersion is that of the database format of Spack 0.22 and 0.23.
const indexVersion = "7"

// Names of files in a build cache, and the limit of what is read of them.
const (
	indexFile = "index.json"
	indexLock = ".index.lock"
	maxIndex  = 1 << 30
)

// updateIndex adds packages, by the names of their descriptions, to the index of a
// build cache. Where there is none, or one that cannot be read, it is made of all
// that the cache has. Builds on one host take turns.
func updateIndex(ctx context.Context, dir string, added []string) error {
	if len(added) == 0 {
		return nil
	}
	lock, err := lockIndex(ctx, filepath.Join(dir, indexLock))
	if err != nil {
		return fmt.Errorf("lock the index: %w", err)
	}
	defer lock.Close()
	index, err := readIndex(filepath.Join(dir, indexFile))
	if err != nil {
		if added, err = allDescriptions(dir); err != nil {
			return err
		}
	}
	for _, name := range added {
		// A package that cannot be read is not offered.
		if text, err := bounded.ReadFile(filepath.Join(dir, name), maxDescription); err == nil {
			index.add(plainText(text))
		}
	}
	return index.write(filepath.Join(dir, indexFile))
}

// lockPause is how long a build waits before it looks again whether another one is done
// with the index.
const lockPause = 50 * time.Millisecond

// lockIndex waits until the index is this build's alone, or ctx ends.
func lockIndex(ctx context.Context, file string) (*os.File, error) {
	lock, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, lock.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), lock.Close())
		case <-time.After(lockPause):
		}
	}
}

// readIndex reads an index; with an error it is an empty one.
func readIndex(file string) (cacheIndex, error) {
	text, err := bounded.ReadFile(file, maxIndex)
	if err != nil {
		return newIndex(), err
	}
	return parseIndex(text)
}

func newIndex() (empty cacheIndex) {
	empty.Database.Version, empty.Database.Installs = indexVersion, map[string]*indexRecord{}
	return empty
}

// parseIndex reads an index; with an error it is an empty one.
func parseIndex(text []byte) (cacheIndex, error) {
	empty, index := newIndex(), cacheIndex{}
	if err := json.Unmarshal(text, &index); err != nil {
		return empty, err
	}
	if index.Database.Version != indexVersion || index.Database.Installs == nil {
		return empty, errors.New("the index is of another version of Spack")
	}
	for _, r := range index.Database.Installs {
		if r == nil {
			return empty, errors.New("the index has an empty record")
		}
	}
	return index, nil
}

func allDescriptions(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".spec.json") || strings.HasSuffix(e.Name(), ".spec.json.sig") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// plainText returns what was signed in a clear-signed text, any other as it is.
func plainText(text []byte) []byte {
	if !bytes.HasPrefix(text, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return text
	}
	_, text, _ = bytes.Cut(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
	text, _, _ = bytes.Cut(text, []byte("\n-----BEGIN PGP SIGNATURE-----"))
	return bytes.ReplaceAll(text, []byte("\n- "), []byte("\n"))
}

// add enters the package of a description, which comes first there, and those
// that it depends on.
func (x *cacheIndex) add(text []byte) {
	var d struct {
		Spec struct {
			Nodes []json.RawMessage `json:"nodes"`
		} `json:"spec"`
	}
	if json.Unmarshal(text, &d) != nil {
		return
	}
	for i, node := range d.Spec.Nodes {
		var about struct {
			Hash string `json:"hash"`
		}
		if json.Unmarshal(node, &about) != nil || !isHash(about.Hash) {
			return
		}
		record := x.Database.Installs[about.Hash]
		if record == nil {
			record = &indexRecord{Spec: node}
			x.Database.Installs[about.Hash] = record
		}
		record.InCache = record.InCache || i == 0
	}
}

// count sets how many packages depend on each.
func (x *cacheIndex) count() {
	for _, r := range x.Database.Installs {
		r.RefCount = 0
	}
	for _, r := range x.Database.Installs {
		var node struct {
			Dependencies []struct {
				Hash string `json:"hash"`
			} `json:"dependencies"`
		}
		if json.Unmarshal(r.Spec, &node) != nil {
			continue
		}
		for _, d := range node.Dependencies {
			if to := x.Database.Installs[d.Hash]; to != nil {
				to.RefCount++
			}
		}
	}
}

// write replaces the index, then the digest by which Spack sees that it changed.
func (x *cacheIndex) write(file string) error {
	x.count()
	text, err := json.Marshal(x)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteBytes(file, 0o644, text); err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	return atomicfile.WriteBytes(file+".hash", 0o644, []byte(hex.EncodeToString(sum[:])))
}
