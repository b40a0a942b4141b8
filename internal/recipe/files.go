package recipe

import (
	"path/filepath"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

// readModules takes over modules.yaml and decides whether modules are made.
func (l *loader) readModules() {
	r := l.recipe
	r.ModulesFile = l.document("modules.yaml", false)
	key := l.config.Get("modules")
	switch r.Version {
	case 1:
		r.Modules = key.Bool(true)
	default:
		r.Modules = r.ModulesFile != nil
	}
	if r.Version == 2 && key != nil {
		l.Warn(l.config.Key("modules"), "deprecated-key", "remove it: the presence of modules.yaml decides", "'modules' is deprecated")
		if b, ok := key.Value.(bool); ok && b != r.Modules {
			l.Fail(key, "the presence of modules.yaml decides: remove 'modules', and the file if no modules are wanted",
				"conflicting modules configuration: 'modules: %t', but modules.yaml %s", b, map[bool]string{true: "exists", false: "is missing"}[r.Modules])
		}
	}
	if r.Version == 3 && key != nil {
		l.Warn(l.config.Key("modules"), "ignored-key", "remove it: the presence of modules.yaml decides", "'modules' has no effect in version 3")
	}
	l.Add(formats[r.Version].modules.Validate(r.ModulesFile)...)
	l.checkModuleRoots()
}

// checkModuleRoots warns of roots that are replaced.
func (l *loader) checkModuleRoots() {
	if l.recipe.Version == 1 {
		return
	}
	roots := l.recipe.ModulesFile.Get("modules").Get("default").Get("roots")
	for _, p := range yamlpos.Pairs(roots) {
		l.Warn(p.Key, "ignored-key", "remove it: modules always go to <mount>/modules", "'modules.default.roots.%s' has no effect", p.Key.Raw)
	}
}

// readPackages takes over packages.yaml.
func (l *loader) readPackages() {
	n := l.document("packages.yaml", false)
	if n == nil {
		return
	}
	l.Add(packagesFormat.Validate(n)...)
	if packages := n.Get("packages"); packages != nil && packages.Kind == yamlpos.Mapping {
		l.recipe.Packages = packages
	}
}

// readFiles takes over what else is in the directory.
func (l *loader) readFiles() {
	r := l.recipe
	r.PreInstall = l.template("pre-install")
	r.PostInstall = l.template("post-install")
	if l.isDir("repo/packages") {
		r.PackageRepo = filepath.Join(r.Dir, "repo")
	} else if l.exists("repo") {
		l.warnFile("repo", "ignored-file", "a package repository has a directory 'packages'", "has no effect")
	}
	l.readExtra()
	switch {
	case !l.exists("mirrors.yaml"):
	case r.Version == 1:
		l.failFile("mirrors.yaml", "give mirrors and caches on the command line", "a mirrors.yaml in the recipe is not supported")
	default:
		l.warnFile("mirrors.yaml", "ignored-file", "give mirrors and caches on the command line", "has no effect")
	}
}

func (l *loader) readExtra() {
	if l.isDir("extra") {
		l.recipe.Extra = filepath.Join(l.recipe.Dir, "extra")
	} else if l.exists("extra") {
		l.warnFile("extra", "ignored-file", "", "has no effect, since it is not a directory")
	}
}

func (l *loader) exists(name string) bool {
	_, err := l.source.stat(name)
	return err == nil
}

func (l *loader) isDir(name string) bool {
	info, err := l.source.stat(name)
	return err == nil && info.IsDir()
}

// checkLinks visits every file, since the whole directory becomes part of the
// image: links must lead to something inside the repository, without cycles.
func (l *loader) checkLinks() {
	err := l.source.Walk(".", []string{".git"}, func(SourceEntry) error { return l.ctx.Err() })
	if err != nil && l.ctx.Err() == nil {
		l.failFile("", fault.HintOf(err), "the recipe cannot be copied: %v", err)
	}
}
