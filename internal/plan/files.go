package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
)

// FileDigest is the content of a file as far as an image depends on it.
type FileDigest struct {
	Path   string `json:"path"`   // slash-separated
	Digest string `json:"digest"` // of whether it is executable and of its content
}

// directory stands for the content of a directory.
const directory = "directory"

// Files reads the digests of directories, each directory once: many jobs share
// a recipe or a cluster's packages. It may be used by several goroutines.
type Files struct {
	mu   sync.Mutex
	seen map[string]func() ([]FileDigest, error)
}

// Recipe returns the digests of all files of a recipe directory but .git: all
// of it goes into the image. Links are followed inside the git repository.
func (f *Files) Recipe(dir string) ([]FileDigest, error) {
	return f.once("recipe "+dir, func() ([]FileDigest, error) { return tree(dir, ".", []string{".git"}) })
}

// Cluster returns the digests of what a recipe of the given version takes from
// a cluster configuration: version 1 every file, the others the documents they
// know; and the packages of its repositories. Paths do not tell where the
// configuration is.
func (f *Files) Cluster(c *site.Cluster, recipeVersion int) ([]FileDigest, error) {
	names := []string{"packages.yaml", "network.yaml", "repos.yaml"}
	if recipeVersion == 1 {
		names = c.OtherFiles
	}
	var digests []FileDigest
	for _, name := range names {
		digest, err := file(filepath.Join(c.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read cluster configuration: %w", err)
		}
		digests = append(digests, FileDigest{Path: name, Digest: digest})
	}
	for i, repo := range c.PackageRepos {
		packages, err := f.once("packages "+repo, func() ([]FileDigest, error) { return tree(repo, "packages", nil) })
		if err != nil {
			return nil, err
		}
		for _, p := range packages { // their order decides which definition wins
			digests = append(digests, FileDigest{Path: fmt.Sprintf("repo%d/%s", i, p.Path), Digest: p.Digest})
		}
	}
	return digests, nil
}

// once makes sure that work named by key is done once, also by concurrent callers.
func (f *Files) once(key string, work func() ([]FileDigest, error)) ([]FileDigest, error) {
	f.mu.Lock()
	if f.seen == nil {
		f.seen = map[string]func() ([]FileDigest, error){}
	}
	if f.seen[key] == nil {
		f.seen[key] = sync.OnceValues(work)
	}
	do := f.seen[key]
	f.mu.Unlock()
	return do()
}

func tree(dir, name string, skip []string) ([]FileDigest, error) {
	source, err := recipe.OpenSource(dir)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	var digests []FileDigest
	buffer := make([]byte, 16<<10) // more than most files have
	err = source.Walk(name, skip, func(e recipe.SourceEntry) error {
		if e.Dir {
			digests = append(digests, FileDigest{Path: e.Name + "/", Digest: directory})
			return nil
		}
		in, err := e.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		digest, err := digestOf(in, buffer, in.Executable())
		digests = append(digests, FileDigest{Path: e.Name, Digest: digest})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	return digests, nil
}

func file(name string) (string, error) {
	in, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	return digestOf(in, nil, false)
}

// digestOf reads a file through a buffer; nil: one is made.
func digestOf(in io.Reader, buffer []byte, executable bool) (string, error) {
	hash := sha256.New()
	if _, err := io.CopyBuffer(hash, in, buffer); err != nil {
		return "", err
	}
	digest := hex.EncodeToString(hash.Sum(nil))
	if executable {
		digest += " executable"
	}
	return digest, nil
}
