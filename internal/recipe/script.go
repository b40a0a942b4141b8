package recipe

import (
	"path/filepath"
	"strings"

	"uenv-ci.dev/internal/yamlpos"
)

// isScript reports whether config.yaml is that of a recipe for the script builder.
func isScript(config *yamlpos.Node) bool {
	s, _ := config.Get("builder").Str()
	return s == BuilderScript
}

// loadScript reads a recipe for the script builder: our own format, in which the
// program build installs into the store and environments.yaml, if there, only
// declares views.
func (l *loader) loadScript() {
	r := l.recipe
	r.Builder = BuilderScript
	l.Add(scriptConfigFormat.Validate(l.config)...)
	l.readNames()
	l.environments = l.document("environments.yaml", false)
	l.Add(scriptEnvironmentsFormat.Validate(l.environments)...)
	l.readScriptViews()
	l.readBuild()
	l.readExtra()
	l.checkDefaultView()
	for _, name := range []string{"compilers.yaml", "modules.yaml", "packages.yaml", "mirrors.yaml", "repo", "pre-install", "post-install"} {
		if l.exists(name) {
			l.warnFile(name, "ignored-file", "the script builder only runs 'build'", "has no effect")
		}
	}
}

// readBuild reads the program that installs into the store.
func (l *loader) readBuild() {
	l.recipe.Build = l.hook("build")
	if l.recipe.Build == nil {
		if !l.exists("build") {
			l.failFile("build", "it is the program that installs into the store", "the file is missing")
		}
		return
	}
	if info, err := l.source.stat("build"); err == nil && info.Mode()&0o111 == 0 {
		l.failFile("build", "chmod +x "+l.path("build"), "is not executable")
	}
}

// readScriptViews puts the views into one environment named like the recipe.
func (l *loader) readScriptViews() {
	if l.environments == nil {
		return
	}
	e := Environment{Name: l.recipe.Name, Node: l.environments, Unify: true}
	for _, p := range yamlpos.Pairs(l.environments.Get("views")) {
		v := View{
			Name: p.Key.Text(), Node: p.Key, Link: "roots",
			Description: p.Value.Get("description").Text(),
			Paths:       prefixPaths(p.Value.Get("prefix_paths")),
			EnvVars:     l.envVars(p.Value.Get("env_vars")),
		}
		for _, variable := range yamlpos.Pairs(p.Value.Get("prefix_paths")) {
			l.checkStorePaths(variable.Value)
		}
		e.Views = append(e.Views, v)
	}
	l.recipe.Environments = []Environment{e}
}

// checkStorePaths reports directories that are not inside the store or that a
// search path cannot hold.
func (l *loader) checkStorePaths(n *yamlpos.Node) {
	for _, item := range yamlpos.Items(n) {
		dir, ok := item.Str()
		switch {
		case !ok:
		case !filepath.IsLocal(dir):
			l.Fail(item, "paths are relative to the store", "'%s' is not a directory of the store", dir)
		case strings.Contains(dir, ":"):
			l.Fail(item, "write one directory per entry of the list", "'%s' cannot be part of a search path, which is separated by ':'", dir)
		}
	}
}
