package recipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
)

// Load reads and checks the recipe in a directory. What is wrong is returned as
// one fault.Problems over all files, warnings included, each with its place;
// what is merely doubtful ends in Recipe.Warnings. A directory that does not
// exist is an error of kind fault.NotFound.
func Load(ctx context.Context, dir string) (*Recipe, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("load recipe: %w", err)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "the recipe directory '%s' does not exist", dir)
	case err != nil:
		return nil, fmt.Errorf("load recipe: %w", err)
	case !info.IsDir():
		return nil, fault.New(fault.Invalid, "the recipe '%s' is not a directory", dir)
	}
	source, err := OpenSource(dir)
	if err != nil {
		return nil, fmt.Errorf("load recipe: %w", err)
	}
	defer source.Close()
	l := &loader{ctx: ctx, dir: dir, source: source, recipe: &Recipe{Dir: absolute}}
	l.load()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load recipe '%s': %w", dir, err)
	}
	l.Problems.Sort()
	err = l.Problems.Err()
	if more := len(l.Problems) - maxProblems; more > 0 {
		l.Problems = append(l.Problems.Errors(), l.Problems.Warnings()...)
		l.Problems = append(l.Problems[:maxProblems:maxProblems], fault.Problem{
			File: dir, Message: fmt.Sprintf("%d more problems", more), Severity: fault.Warning, Rule: "more",
		})
	}
	if err != nil {
		return nil, l.Problems
	}
	l.recipe.Warnings = l.Problems
	return l.recipe, nil
}

// maxProblems is the number of problems that are reported for one recipe.
const maxProblems = 1000

// loader collects a recipe and all that is wrong with it.
type loader struct {
	yamlpos.Findings
	ctx    context.Context
	dir    string // as given, for messages
	source *Source
	recipe *Recipe

	config, compilers, environments *yamlpos.Node // what could be parsed
}

func (l *loader) load() {
	l.config = l.document("config.yaml", true)
	if isScript(l.config) {
		l.loadScript()
		l.checkLinks()
		return
	}
	l.compilers = l.document("compilers.yaml", true)
	l.environments = l.document("environments.yaml", true)
	l.recipe.Builder = BuilderSpack
	l.recipe.Version = l.version()
	l.Add(formats[l.recipe.Version].config.Validate(l.config)...)
	l.Add(formats[l.recipe.Version].compilers.Validate(l.compilers)...)
	l.Add(formats[l.recipe.Version].environments.Validate(l.environments)...)
	l.readConfig()
	l.readCompilers()
	l.readEnvironments()
	l.readModules()
	l.readPackages()
	l.readFiles()
	l.checkDefaultView()
	l.checkAddedViews()
	l.checkLinks()
}

// format has the schemas of one version of the recipe format.
type format struct{ config, compilers, environments, modules schema.Lazy }

var (
	formats = map[int]format{
		1: {schema.Named("recipe-v1-config.json"), schema.Named("recipe-v1-compilers.json"), schema.Named("recipe-v1-environments.json"), schema.Named("recipe-v1-modules.json")},
		2: {schema.Named("recipe-v2-config.json"), schema.Named("recipe-v2-compilers.json"), schema.Named("recipe-v2-environments.json"), schema.Named("recipe-modules.json")},
		3: {schema.Named("recipe-v3-config.json"), schema.Named("recipe-v3-compilers.json"), schema.Named("recipe-v3-environments.json"), schema.Named("recipe-modules.json")},
	}
	packagesFormat           = schema.Named("packages.json")
	scriptConfigFormat       = schema.Named("recipe-script-config.json")
	scriptEnvironmentsFormat = schema.Named("recipe-script-environments.json")
)

// path returns the name of a file of the recipe as messages show it.
func (l *loader) path(name string) string { return filepath.Join(l.dir, name) }

// failFile reports an error of a file as a whole.
func (l *loader) failFile(name, hint, format string, args ...any) {
	l.Add(fault.Problem{File: l.path(name), Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (l *loader) warnFile(name, rule, hint, format string, args ...any) {
	l.Warn(&yamlpos.Node{File: l.path(name)}, rule, hint, format, args...)
}

// below is a hint for who names the directory of all versions instead of one.
func (l *loader) below(name string) string {
	entries, _ := os.ReadDir(l.dir)
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(l.dir, e.Name(), name)); err == nil && name == "config.yaml" {
			return "there is one in " + filepath.Join(l.dir, e.Name())
		}
	}
	return ""
}

// document reads a YAML file of the recipe; nil if it is absent or unreadable.
func (l *loader) document(name string, required bool) *yamlpos.Node {
	data, err := l.readFile(name, yamlpos.MaxBytes+1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if required {
			l.failFile(name, l.below(name), "the file is missing")
		}
		return nil
	case err != nil:
		l.failFile(name, fault.HintOf(err), "cannot be read: %v", err)
		return nil
	}
	node, problems := yamlpos.Read(l.path(name), data)
	l.Add(problems...)
	return node
}

// readFile reads a regular file of the recipe, links followed inside its
// repository. Of a longer file it returns limit bytes.
func (l *loader) readFile(name string, limit int64) ([]byte, error) {
	info, err := l.source.stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("it is a directory")
	}
	f, err := l.source.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content := bytes.NewBuffer(make([]byte, 0, min(info.Size(), limit)+bytes.MinRead))
	_, err = content.ReadFrom(io.LimitReader(f, limit))
	return content.Bytes(), err
}
