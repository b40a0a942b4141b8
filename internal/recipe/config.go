package recipe

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/yamlpos"
)

// version finds out the version of the format. Where config.yaml does not say it
// properly, that is reported and the version is guessed, so that what else is
// wrong can be reported in one go.
func (l *loader) version() int {
	n := l.config.Get("version")
	if n == nil {
		if l.config != nil && l.config.Kind == yamlpos.Mapping && !l.looksLikeVersion2() {
			return 1
		}
		if l.config == nil || l.config.Kind != yamlpos.Mapping {
			return l.guess()
		}
		l.Fail(l.config, "looks like version 2: add 'version: 2'",
			"there is no 'version', so this is version 1, but it uses what only later versions know")
		return 2
	}
	switch v := n.Value.(type) {
	case int64:
		if v >= 1 && v <= 3 {
			return int(v)
		}
	case float64:
		if v == 1 || v == 2 || v == 3 {
			return int(v)
		}
	default:
		for i := 1; i <= 3; i++ {
			if n.Raw == fmt.Sprint(i) {
				return i // the schema says that it must not be between quotes
			}
		}
		return l.guess()
	}
	l.Fail(n, "", "invalid recipe version '%s': must be 1, 2 or 3", n.Raw)
	return l.guess()
}

func (l *loader) guess() int {
	if l.looksLikeVersion2() {
		return 2
	}
	return 1
}

// looksLikeVersion2 reports whether there are keys that only version 2 and later
// have, and none that only version 1 has.
func (l *loader) looksLikeVersion2() bool {
	if l.compilers.Get("bootstrap") != nil || l.compilers.Get("gcc").Get("specs") != nil {
		return false
	}
	if l.config.Get("spack").Get("packages") != nil || l.config.Get("default-view") != nil || l.compilers.Get("gcc").Get("version") != nil {
		return true
	}
	if l.environments == nil {
		return false
	}
	for _, p := range l.environments.Pairs {
		for _, key := range []string{"network", "duplicates", "prefer"} {
			if p.Value.Get(key) != nil {
				return true
			}
		}
	}
	return false
}

// readConfig takes over config.yaml.
func (l *loader) readConfig() {
	r, c := l.recipe, l.config
	l.readNames()
	r.Cleanup = "none"
	if s, ok := c.Get("cleanup").Str(); ok {
		r.Cleanup = s
	}
	if n := c.Get("mirror"); n != nil && r.Version == 1 {
		l.Warn(c.Key("mirror"), "unused-key", "give mirrors and caches on the command line", "'mirror' has no effect")
	}
	spack := c.Get("spack")
	r.Spack = Spack{Repo: spack.Get("repo").Text(), Commit: spack.Get("commit").OptionalText(), Node: spack}
	if spack != nil {
		at := spack.Get("commit")
		if at == nil {
			at = c.Key("spack")
		}
		l.checkPin(at, "Spack", r.Spack.Commit)
		l.checkSpackVersion(at)
	}
	if r.Version > 1 {
		r.Spack.Packages = l.packageRepositories(spack.Get("packages"))
	}
	r.Spack.Block = spackBlock(spack, r.Version)
}

// readNames takes over what all builders have in config.yaml.
func (l *loader) readNames() {
	r, c := l.recipe, l.config
	r.Name = c.Get("name").Text()
	r.Description, r.HasDescription = c.Get("description").Str()
	if r.Version != 1 {
		r.DefaultView = c.Get("default-view").Text()
	}
	r.Store = pathcheck.DefaultMount
	if s, ok := c.Get("store").Str(); ok {
		r.Store = s
		if err := pathcheck.MountPoint(filepath.Clean(s)); err != nil && filepath.IsAbs(s) { // else the schema tells
			l.Fail(c.Get("store"), "most use "+pathcheck.DefaultMount, "'%s' cannot be a mount point: %v", s, err)
		}
	}
}

// packageRepositories reads `spack: packages:`, one repository or several by name.
func (l *loader) packageRepositories(n *yamlpos.Node) []PackageRepository {
	if n == nil || n.Kind != yamlpos.Mapping {
		return nil
	}
	if isRepository(n) {
		return []PackageRepository{l.packageRepository("builtin", l.config.Get("spack").Key("packages"), n)}
	}
	var list []PackageRepository
	for _, p := range n.Pairs {
		name := p.Key.Text()
		if name == "alps" || name == "recipe" {
			l.Fail(p.Key, "choose another name", "the name '%s' is reserved for the package repository of the %s", name,
				map[string]string{"alps": "site", "recipe": "recipe"}[name])
		}
		list = append(list, l.packageRepository(name, p.Key, p.Value))
	}
	return list
}

// isRepository tells one repository from several by name, one of which may be
// called repo.
func isRepository(n *yamlpos.Node) bool {
	repo := n.Get("repo")
	return repo != nil && repo.Kind != yamlpos.Mapping
}

func (l *loader) packageRepository(name string, key, n *yamlpos.Node) PackageRepository {
	r := PackageRepository{Name: name, Repo: n.Get("repo").Text(), Path: "repos/spack_repo/" + name, Commit: n.Get("commit").OptionalText()}
	if s, ok := n.Get("path").Str(); ok {
		r.Path = cmp.Or(s, ".")
	}
	at := n.Get("commit")
	if at == nil {
		at = key
	}
	l.checkPin(at, fmt.Sprintf("the package repository '%s'", name), r.Commit)
	return r
}

// checkPin warns of references whose meaning changes with time.
func (l *loader) checkPin(at *yamlpos.Node, what string, commit *string) {
	const hint = "pin a tag or a commit, so that the same recipe builds the same image"
	switch {
	case commit == nil:
		l.Warn(at, "moving-branch", hint, "%s is taken from its default branch, which moves", what)
	case IsMoving(*commit):
		l.Warn(at, "moving-branch", hint, "%s is taken from the branch '%s', which moves", what, *commit)
	}
}

// IsMoving reports whether a reference is by convention a branch rather than a
// tag or commit: develop, main, master or releases/….
func IsMoving(reference string) bool {
	switch reference {
	case "develop", "main", "master", "HEAD":
		return true
	}
	return strings.HasPrefix(reference, "releases/") || strings.HasPrefix(reference, "refs/heads/")
}

var tooOld = regexp.MustCompile(`0\.(?:1\d|20)(?:\.|$)`)

// checkSpackVersion warns of a Spack that no builder works with. Whoever builds
// the recipe refuses it; reading and planning it is possible.
func (l *loader) checkSpackVersion(at *yamlpos.Node) {
	commit := l.recipe.Spack.Commit
	if l.recipe.Version == 1 && commit != nil && tooOld.MatchString(*commit) {
		l.Warn(at, "spack-too-old", "use 0.21 or newer", "Spack %s is too old to be built with: the oldest that works is 0.21", *commit)
	}
}

// spackBlock returns the `spack` mapping with the defaults that upstream inserts.
func spackBlock(spack *yamlpos.Node, version int) *yamlpos.Map {
	block, ok := spack.Data().(*yamlpos.Map)
	if !ok {
		return yamlpos.NewMap()
	}
	addNull(block, "commit")
	packages, _ := block.Get("packages")
	m, ok := packages.(*yamlpos.Map)
	if !ok || version != 3 {
		return block
	}
	if isRepository(spack.Get("packages")) {
		addNull(m, "commit")
		return block
	}
	for _, e := range m.Entries() {
		if repository, ok := e.Value.(*yamlpos.Map); ok {
			addNull(repository, "commit")
		}
	}
	return block
}

func addNull(m *yamlpos.Map, key string) {
	if _, ok := m.Get(key); !ok {
		m.Set(key, nil)
	}
}
