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
	"uenv-ci.dev/schemas"
)

// reader collects what is wrong with the documents it reads.
type reader struct{ problems fault.Problems }

func (r *reader) fail(at *yamlpos.Node, hint, format string, args ...any) {
	r.problems = append(r.problems, at.Problem(fmt.Sprintf(format, args...), hint))
}

func (r *reader) warn(at *yamlpos.Node, rule, hint, format string, args ...any) {
	p := at.Problem(fmt.Sprintf(format, args...), hint)
	p.Severity, p.Rule = fault.Warning, rule
	r.problems = append(r.problems, p)
}

// document reads a YAML file; nil if it does not exist or cannot be parsed.
func (r *reader) document(path string) *yamlpos.Node {
	data, err := bounded.ReadFile(path, yamlpos.MaxBytes+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		r.problems = append(r.problems, fault.Problem{File: path, Message: fmt.Sprintf("cannot be read: %v", err)})
		return nil
	}
	node, problems := yamlpos.Read(path, data)
	r.problems = append(r.problems, problems...)
	return node
}

// checked is document with a check against a schema.
func (r *reader) checked(path string, s lazySchema) *yamlpos.Node {
	node := r.document(path)
	if node == nil {
		return nil
	}
	compiled, err := s()
	if err != nil { // a mistake in this program: its tests compile every schema
		r.fail(node, "", "cannot be checked: %v", err)
		return nil
	}
	r.problems = append(r.problems, compiled.Validate(node)...)
	return node
}

// finish returns the warnings, or everything as an error if there are errors.
func (r *reader) finish() (warnings fault.Problems, err error) {
	r.problems.Sort()
	if r.problems.Err() != nil {
		return nil, r.problems
	}
	return r.problems, nil
}

// lazySchema is a schema compiled at its first use.
type lazySchema = func() (*schema.Schema, error)

var (
	packagesFormat = schema.Lazy(schemas.FS, "packages.json")
	networkFormat  = schema.Lazy(schemas.FS, "cluster-network.json")
	reposFormat    = schema.Lazy(schemas.FS, "cluster-repos.json")
	matrixFormat   = schema.Lazy(schemas.FS, "matrix.json")
	mirrorsFormat  = schema.Lazy(schemas.FS, "mirrors.json")
	cacheFormat    = schema.Lazy(schemas.FS, "cache.json")
	siteFormat     = schema.Lazy(schemas.FS, "site.json")
)

var variable = regexp.MustCompile(`\$(?:(\w+)|\{(\w+)\})`)

func text(n *yamlpos.Node) string {
	s, _ := n.Str()
	return s
}

func texts(n *yamlpos.Node) []string {
	if n == nil {
		return nil
	}
	var list []string
	for _, item := range n.Items {
		if s, ok := item.Str(); ok {
			list = append(list, s)
		}
	}
	return list
}

func truth(n *yamlpos.Node, otherwise bool) bool {
	if n != nil {
		if b, ok := n.Value.(bool); ok {
			return b
		}
	}
	return otherwise
}

func number(n *yamlpos.Node) int {
	if n != nil {
		if i, ok := n.Value.(int64); ok {
			return int(i)
		}
	}
	return 0
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func join(words []string) string { return strings.Join(words, ", ") }

var escapeGlob = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace

// suggest returns a hint that names the candidate most like word.
func suggest(word string, candidates []string) string {
	if near := schema.Nearest(word, candidates); near != "" {
		return fmt.Sprintf("did you mean '%s'?", near)
	}
	return ""
}

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
