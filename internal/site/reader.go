package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
)

// reader collects what is wrong with the documents it reads.
type reader struct{ yamlpos.Findings }

// document reads a YAML file; nil if it does not exist or cannot be parsed.
func (r *reader) document(path string) *yamlpos.Node {
	data, err := bounded.ReadFile(path, yamlpos.MaxBytes+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		r.Add(fault.Problem{File: path, Message: fmt.Sprintf("cannot be read: %v", err)})
		return nil
	}
	node, problems := yamlpos.Read(path, data)
	r.Add(problems...)
	return node
}

// checked is document with a check against a schema.
func (r *reader) checked(path string, s schema.Lazy) *yamlpos.Node {
	node := r.document(path)
	r.Add(s.Validate(node)...)
	return node
}

// finish returns the warnings, or everything as an error if there are errors.
func (r *reader) finish() (warnings fault.Problems, err error) {
	r.Problems.Sort()
	if r.Problems.Err() != nil {
		return nil, r.Problems
	}
	return r.Problems, nil
}

var (
	packagesFormat = schema.Named("packages.json")
	networkFormat  = schema.Named("cluster-network.json")
	reposFormat    = schema.Named("cluster-repos.json")
	matrixFormat   = schema.Named("matrix.json")
	mirrorsFormat  = schema.Named("mirrors.json")
	cacheFormat    = schema.Named("cache.json")
	siteFormat     = schema.Named("site.json")
)

var variable = regexp.MustCompile(`\$(?:(\w+)|\{(\w+)\})`)

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func join(words []string) string { return strings.Join(words, ", ") }

var escapeGlob = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace

// openDir checks that a directory of configuration is one.
func openDir(what, dir string) (absolute string, err error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.NotFound, "the %s '%s' does not exist", what, dir)
	case err != nil:
		return "", fmt.Errorf("read the %s: %w", what, err)
	case !info.IsDir():
		return "", fault.New(fault.Invalid, "the %s '%s' is not a directory", what, dir)
	}
	return filepath.Abs(dir)
}
