package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/parallel"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
)

// LintOptions say what is checked.
type LintOptions struct {
	// Paths are recipes, matrices, cluster configurations and site files, told
	// apart by what they hold, or directories of them.
	Paths []string
	// Site is a site file to be checked besides, whatever its name; "" is none.
	Site string
	// ClusterFor finds the configuration of a system for recipes of a version,
	// "" if there is none. Nil: only what Paths name is known.
	ClusterFor func(system string, recipeVersion int) string
	Getenv     func(string) string // for site files
	WorkDir    string              // absolute; files in it are shown relative to it
	Strict     bool                // warnings count as errors
	Events     event.Sink
}

// LintReport is what checking showed.
type LintReport struct {
	Checked  LintCounts     `json:"checked"`
	Errors   int            `json:"errors"`
	Warnings int            `json:"warnings"`
	Problems fault.Problems `json:"problems"` // sorted by place
}

// LintCounts are numbers of what was checked.
type LintCounts struct {
	Recipes  int `json:"recipes"`
	Matrices int `json:"matrices"`
	Clusters int `json:"clusters"`
	Sites    int `json:"sites"`
	Targets  int `json:"targets"` // of matrices: recipes were tried with these clusters
}

// Lint checks everything that the paths lead to, and how it fits together. It
// reports all that is wrong at once. The error is that of a path which is not
// there, or of an interruption.
func Lint(ctx context.Context, o LintOptions) (LintReport, error) {
	l := &linter{LintOptions: o, recipes: map[string]*lintedRecipe{}, clusters: map[string]*lintedCluster{}, shown: map[string]string{}}
	if o.Site != "" {
		l.addSite(o.Site)
	}
	for _, path := range o.Paths {
		if err := l.find(path); err != nil {
			return LintReport{}, err
		}
	}
	for _, m := range l.matrices {
		l.addRecipesOf(m)
	}
	err := doAll(ctx, l.work())
	if err == nil {
		err = l.crossCheck(ctx)
	}
	if err != nil {
		return LintReport{}, fmt.Errorf("lint: %w", err)
	}
	return l.report(), nil
}

// linter collects what is to be checked and what is wrong with it. Maps are by
// absolute directory.
type linter struct {
	LintOptions
	recipes  map[string]*lintedRecipe
	clusters map[string]*lintedCluster
	matrices []*site.Matrix
	sites    []string // absolute
	unusable int      // matrices that could not be read
	targets  int

	mu       sync.Mutex // guards what follows
	problems fault.Problems
	shown    map[string]string // directories as they were given
}

type lintedRecipe struct {
	dir    string // as given
	loaded *recipe.Recipe
}

type lintedCluster struct {
	dir    string
	loaded *site.Cluster
}

func (l *linter) add(problems ...fault.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, problems...)
}

// addError adds an error as problems, of the file where it names no other.
func (l *linter) addError(file string, err error) {
	var problems fault.Problems
	if errors.As(err, &problems) {
		l.add(problems...)
		return
	}
	l.add(fault.Problem{File: file, Message: err.Error(), Hint: fault.HintOf(err)})
}

// addRecipe and addCluster note a directory to be checked, once however it is
// written.
func (l *linter) addRecipe(dir string) {
	if key := l.key(dir); l.recipes[key] == nil {
		l.recipes[key] = &lintedRecipe{dir: dir}
	}
}

func (l *linter) addCluster(dir string) {
	if key := l.key(dir); l.clusters[key] == nil {
		l.clusters[key] = &lintedCluster{dir: dir}
	}
}

// key returns the absolute form of a directory, and remembers how it was given.
func (l *linter) key(dir string) string {
	absolute := dir
	if !filepath.IsAbs(dir) {
		absolute = filepath.Join(l.WorkDir, dir)
	}
	absolute = filepath.Clean(absolute)
	if _, ok := l.shown[absolute]; !ok {
		l.shown[absolute] = dir
	}
	return absolute
}

// work lists what is read on its own, to be done in any order.
func (l *linter) work() []func(context.Context) {
	var tasks []func(context.Context)
	for _, r := range l.recipes {
		tasks = append(tasks, func(ctx context.Context) { l.readRecipe(ctx, r) })
	}
	for _, c := range l.clusters {
		tasks = append(tasks, func(context.Context) { l.readCluster(c) })
	}
	return tasks
}

func (l *linter) readRecipe(ctx context.Context, r *lintedRecipe) {
	loaded, err := recipe.Load(ctx, r.dir)
	if err != nil {
		l.addError(r.dir, err)
		return
	}
	r.loaded = loaded
	l.add(loaded.Warnings...)
	l.add(checkCompression(loaded)...)
}

func (l *linter) readCluster(c *lintedCluster) {
	loaded, err := site.LoadCluster(c.dir)
	if err != nil {
		l.addError(c.dir, err)
		return
	}
	c.loaded = loaded
	l.add(loaded.Warnings...)
}

// doAll does all tasks until ctx is cancelled.
func doAll(ctx context.Context, tasks []func(context.Context)) error {
	return parallel.Each(ctx, tasks, func(ctx context.Context, task func(context.Context)) { task(ctx) })
}

// report sorts the problems and leaves out what was found twice: files can be
// shared by links, and a recipe is tried with several clusters.
func (l *linter) report() LintReport {
	for i := range l.problems {
		p := &l.problems[i]
		p.File = l.show(p.File)
		p.Message, p.Hint = l.showAll(p.Message), l.showAll(p.Hint)
		if l.Strict {
			p.Severity = fault.Error
		}
	}
	slices.SortStableFunc(l.problems, func(a, b fault.Problem) int {
		return cmp.Or(strings.Compare(a.Message, b.Message), cmp.Compare(a.Severity, b.Severity))
	})
	l.problems.Sort()
	same := func(a, b fault.Problem) bool {
		return a.File == b.File && a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	}
	r := LintReport{
		Checked:  LintCounts{len(l.recipes), len(l.matrices) + l.unusable, len(l.clusters), len(l.sites), l.targets},
		Problems: slices.CompactFunc(l.problems, same),
	}
	if r.Problems == nil {
		r.Problems = fault.Problems{}
	}
	r.Errors, r.Warnings = len(r.Problems.Errors()), len(r.Problems.Warnings())
	return r
}

// show returns a file's name as its reader knows it.
func (l *linter) show(file string) string {
	if !filepath.IsAbs(file) {
		return filepath.Clean(file)
	}
	for dir := file; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if given, ok := l.shown[dir]; ok && !filepath.IsAbs(given) {
			return filepath.Join(given, strings.TrimPrefix(file, dir))
		}
	}
	if relative, err := filepath.Rel(l.WorkDir, file); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return filepath.Clean(file)
}

// showAll does the same for names within a text.
func (l *linter) showAll(text string) string {
	if !strings.Contains(text, l.WorkDir+"/") {
		return text
	}
	return strings.ReplaceAll(text, l.WorkDir+"/", "")
}
