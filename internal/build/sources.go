package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/yamlpos"
)

// sourceMirror is the name under which Spack knows the source cache.
const sourceMirror = "source-cache"

// fetchedDir is where Spack puts what it has fetched, below the build directory.
const fetchedDir = "cache/source"

// checkSourceCache looks at the source cache before anything is built.
func (o *Options) checkSourceCache() error {
	if o.SourceCache == "" {
		return nil
	}
	if !filepath.IsAbs(o.SourceCache) {
		return fault.New(fault.Usage, "the source cache %s is not an absolute path", o.SourceCache)
	}
	info, err := os.Stat(o.SourceCache)
	if errors.Is(err, fs.ErrNotExist) && !o.AirGapped {
		return os.MkdirAll(o.SourceCache, 0o755)
	}
	if err != nil || !info.IsDir() {
		return fault.New(fault.NotFound, "the source cache %s is not a directory", o.SourceCache)
	}
	return nil
}

// useSources makes the source cache known to Spack, read-only, before the other
// mirrors of sources.
func (b *spackBuild) useSources(mirrors *yamlpos.Map) {
	if b.SourceCache != "" {
		b.cell.show(b.SourceCache)
		mirrors.Set(sourceMirror, yamlpos.NewMap("url", "file://"+b.SourceCache, "source", true, "binary", false))
	}
	if b.Stack.Mirrors != nil {
		for _, s := range b.Stack.Mirrors.Sources {
			mirrors.Set(s.Name, s.Entry)
		}
	}
}

// saveSources puts what Spack has fetched into the source cache. What is named by
// the digest of its content is saved if it has that, which nobody can forge; the
// rest, commits of git, only by a build that is protected.
func (b *spackBuild) saveSources() {
	if b.SourceCache == "" || b.AirGapped {
		return
	}
	fetched, err := openForeign(b.cell.path(fetchedDir))
	if err != nil {
		return // nothing was
	}
	defer fetched.Close()
	saved := 0
	err = fs.WalkDir(fetched.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if name == indexDir { // made by us alone, see useIndexes; a package could have put one here
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		ok, err := b.saveSource(fetched, name)
		if ok {
			saved++
		}
		return err
	})
	if err != nil {
		b.Events.Warn("sources", "the source cache does not have everything: %v", err)
	}
	if saved > 0 {
		b.Events.Info("sources", "%d sources are new in %s", saved, b.SourceCache)
	}
}

// saveSource saves one file, unless it is there.
func (b *spackBuild) saveSource(fetched foreign, name string) (bool, error) {
	digest := sourceDigest(name)
	target := filepath.Join(b.SourceCache, name)
	if _, err := os.Lstat(target); err == nil || digest == "" && !b.Protected {
		return false, nil
	}
	in, err := fetched.open(name)
	if err != nil {
		return false, err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return false, err
	}
	err = atomicfile.Write(target, 0o644, func(w io.Writer) error {
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, sum), in); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); digest != "" && got != digest {
			return fmt.Errorf("%s has the digest %s", name, got)
		}
		return nil
	})
	return err == nil, err
}

// sourceDigest returns the SHA-256 digest by which a file of a source cache is
// named, _source-cache/archive/57/57….tar.gz, "" if it is not.
func sourceDigest(name string) string {
	if !strings.HasPrefix(name, "_source-cache/archive/") {
		return ""
	}
	digest, _, _ := strings.Cut(path.Base(name), ".")
	if _, err := hex.DecodeString(digest); err != nil || len(digest) != sha256.Size*2 {
		return ""
	}
	return digest
}

// listSources is a program for Spack's Python: it lists the sources of an
// environment, a JSON object a line.
//
//go:embed sources.py
var listSources []byte

// source is something that has to be fetched for a package.
type source struct {
	Hash    string   `json:"hash"`
	Package string   `json:"package"`
	URL     string   `json:"url"`
	Paths   []string `json:"paths"` // in a mirror, any of them
}

// maxSources bounds what the list of sources may say, in bytes.
const maxSources = 64 << 20

// missingInputs is an error that lists what the recipe names and an air-gapped build
// cannot fetch: Spack, unless it is there, and repositories of packages. Mirrors
// that cannot be reached are told: what they have may be elsewhere too.
func (b *spackBuild) missingInputs(haveSpack bool) error {
	if !b.AirGapped {
		return nil
	}
	var missing []string
	for _, c := range b.tree.Clones {
		reference := "its default branch"
		if c.Commit != nil {
			reference = *c.Commit
		}
		what := "package repository " + c.Name
		if c.CopyPath == "" {
			what = "Spack"
		}
		if c.CopyPath == "" && haveSpack || c.CopyPath != "" && isLocal(c.Repo) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s: %s at %s", what, git.WithoutCredentials(c.Repo), reference))
	}
	if m := b.Stack.Mirrors; m != nil {
		for _, mirror := range m.Sources {
			b.warnUnreachable(mirror)
		}
		if m.BuildCache != nil {
			b.warnUnreachable(m.BuildCache.Mirror)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.WithHint(
		fault.New(fault.NotFound, "a build without a network lacks:\n  %s", strings.Join(missing, "\n  ")),
		"name a local Spack with --spack DIR or %s, and clones of package repositories in config.yaml", spack.Variable)
}

// warnUnreachable tells of a mirror that is no directory of this machine.
func (b *spackBuild) warnUnreachable(mirror site.Mirror) {
	dir := fileURL(mirror.Entry)
	if info, err := os.Stat(dir); dir == "" || err != nil || !info.IsDir() {
		b.Events.Warn("sources", "the mirror %s is not a local directory and is not used", mirror.Name)
	}
}

// missingSources is an error that lists the sources of environments that neither a
// mirror of this machine nor a build cache has. Those of later environments cannot be
// known before the compilers of these are built.
func (b *spackBuild) missingSources(ctx context.Context, environments, later []environment) error {
	caches, err := b.buildCaches()
	if err != nil {
		return err
	}
	var missing []string
	for _, env := range environments {
		sources, err := b.sources(ctx, env)
		if err != nil {
			return err
		}
		for _, s := range sources {
			line := fmt.Sprintf("%s: %s (%s)", s.Package, s.URL, s.Paths[0])
			if !slices.Contains(missing, line) && !b.hasSource(s) && !hasBinary(caches, s.Hash) {
				missing = append(missing, line)
			}
		}
	}
	more := ""
	if len(later) > 0 {
		more = fmt.Sprintf("what %s need is known when the compilers before them are built", strings.Join(names(later), ", "))
		b.Events.Info("sources", "%s", more)
	}
	if len(missing) == 0 {
		return nil
	}
	if more != "" {
		missing = append(missing, "and "+more)
	}
	return fault.WithHint(
		fault.New(fault.NotFound, "sources are missing for a build without a network:\n  %s", strings.Join(missing, "\n  ")),
		"a build with a network and the same --source-cache fetches them, and so does 'spack mirror create'")
}

func names(environments []environment) []string {
	var names []string
	for _, env := range environments {
		names = append(names, env.Name)
	}
	return names
}

// sources lists what has to be fetched for an environment.
func (b *spackBuild) sources(ctx context.Context, env environment) ([]source, error) {
	program := path.Join(engineScope, "sources.py")
	if err := b.cell.files.write(program, listSources, 0o644); err != nil {
		return nil, err
	}
	out := &limitedBuffer{limit: maxSources}
	list := step{name: "sources-" + env.Name}
	list.cmd.Stdout = out
	if err := b.run(ctx, list, "-e", b.cell.inside(env.Dir), "python", b.cell.inside(program)); err != nil {
		return nil, err
	}
	return parseSources(out.Bytes())
}

func parseSources(text []byte) ([]source, error) {
	var sources []source
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue // a warning of Spack's
		}
		var s source
		if err := json.Unmarshal(line, &s); err != nil || len(s.Paths) == 0 {
			return nil, fmt.Errorf("list the sources: unexpected %q", line)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// hasSource tells whether a mirror of this machine has a source.
func (b *spackBuild) hasSource(s source) bool {
	var dirs []string
	if b.SourceCache != "" {
		dirs = append(dirs, b.SourceCache)
	}
	if m := b.Stack.Mirrors; m != nil {
		for _, mirror := range m.Sources {
			if dir := fileURL(mirror.Entry); dir != "" {
				dirs = append(dirs, dir)
			}
		}
	}
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return slices.ContainsFunc(s.Paths, func(name string) bool {
			if !filepath.IsLocal(name) {
				return false
			}
			info, err := os.Stat(filepath.Join(dir, name))
			return err == nil && info.Mode().IsRegular()
		})
	})
}

// hasBinary tells whether a build cache of this machine has a package.
func hasBinary(caches []buildCache, hash string) bool {
	return isHash(hash) && slices.ContainsFunc(caches, func(c buildCache) bool {
		return c.dir != "" && len(globIn(c.dir, "build_cache/*-"+hash+".spec.json*")) > 0
	})
}

// globIn lists what matches a pattern below a directory whose own name is none.
func globIn(dir, pattern string) []string {
	names, _ := fs.Glob(os.DirFS(dir), pattern)
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return names
}

// limitedBuffer keeps so many bytes, and refuses more.
type limitedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, errors.New("a program says too much")
	}
	return b.Buffer.Write(p)
}
