package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/findings"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/site"
)

func lintCommand() *command {
	flags := append(clusterFlags(),
		&cli.BoolFlag{Name: "strict", Usage: "treat warnings as errors"},
		&cli.StringFlag{Name: "report", Usage: "write the findings to `FILE` too, for merge requests and editors"},
		&cli.StringFlag{Name: "report-format", Usage: "write the report as `gitlab|sarif` reads it: code quality, or SARIF (else SARIF if the file's name ends in .sarif, else code quality)"},
	)
	return &command{
		name: "lint", group: "Recipes", checksSite: true, usage: "check recipes, the matrix and cluster configurations",
		args: "[PATH…]", maxArgs: -1,
		details: `PATHs are recipes, the pipeline's config.yaml, cluster configurations and site files, or
directories of these; they are recognised by their content. The default is what the site
file names, else the working directory. A matrix is checked with all its recipes, and each
recipe with the clusters it is built for, as far as their configurations are known.
All problems are shown at once; warnings do not fail the check.`,
		examples: `uenv-ci lint recipes/prgenv-gnu/25.11/gh200
# the whole site, in a merge request
uenv-ci lint config.yaml --clusters ../cluster-config --report gl-code-quality-report.json`,
		flags: flags,
		run:   runLint,
	}
}

// clusterFlags say where cluster configurations are.
func clusterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "clusters", Usage: "the directory `DIR` of cluster configurations (else that of the site file)"},
		&cli.StringFlag{Name: "clusters-v1", Usage: "the directory `DIR` for recipes of version 1, whose Spack reads an older form"},
	}
}

// siteWithClusters is the site with the directories of clusters that are named.
func (in *invocation) siteWithClusters() (*site.Site, error) {
	found := in.site
	s := *found
	if dir := in.String("clusters"); dir != "" {
		s.Clusters, s.ClustersV1 = site.Literal(dir), site.Value{}
	}
	if dir := in.String("clusters-v1"); dir != "" {
		s.ClustersV1 = site.Literal(dir)
	}
	for _, dir := range nonEmpty(in.String("clusters"), in.String("clusters-v1")) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, fault.New(fault.NotFound, "%s is not a directory of cluster configurations", dir)
		}
	}
	return &s, nil
}

// clustersOf returns a function that finds the configuration of a system: nil if
// no directory of them is known.
func clustersOf(s *site.Site) (func(system string, recipeVersion int) string, error) {
	if !s.Clusters.Given() && !s.ClustersV1.Given() {
		return nil, nil
	}
	for _, v := range []site.Value{s.Clusters, s.ClustersV1} {
		if _, err := v.Get(); err != nil {
			return nil, err
		}
	}
	return func(system string, recipeVersion int) string {
		dir, err := s.ClusterDirFor(system, recipeVersion)
		if err != nil {
			return "" // whoever needs it reports it
		}
		return dir
	}, nil
}

func runLint(ctx context.Context, in *invocation) (result, error) {
	collectLater(in.getenv)
	format, err := in.reportFormat()
	if err != nil {
		return nil, err
	}
	o, err := in.lintOptions()
	if err != nil {
		return nil, err
	}
	done, err := pipeline.Lint(ctx, o)
	if err != nil {
		return nil, err
	}
	if in.String("report") != "" {
		data, err := format(done.Problems)
		if err == nil {
			err = atomicfile.WriteBytes(in.String("report"), 0o644, data)
		}
		if err != nil {
			return nil, fmt.Errorf("write the report: %w", err)
		}
	}
	if done.Errors > 0 {
		return lintResult(done), fault.New(fault.Invalid, "%s: %s", checkedText(done.Checked), findingsText(done))
	}
	o.Events.Info("lint", "%s: %s", checkedText(done.Checked), findingsText(done))
	return lintResult(done), nil
}

// reportFormat returns the function that writes the report.
func (in *invocation) reportFormat() (func(fault.Problems) ([]byte, error), error) {
	name := in.String("report-format")
	switch {
	case name == "sarif", name == "" && strings.HasSuffix(in.String("report"), ".sarif"):
		return func(p fault.Problems) ([]byte, error) { return findings.SARIF(p, buildVersion().Version) }, nil
	case name == "gitlab", name == "":
		return findings.CodeQuality, nil
	}
	return nil, usageError([]string{"lint"}, "--report-format must be gitlab or sarif, not %q", name)
}

func (in *invocation) lintOptions() (pipeline.LintOptions, error) {
	o := pipeline.LintOptions{Paths: in.args, Getenv: in.getenv, Strict: in.Bool("strict")}
	s, err := in.siteWithClusters()
	if err != nil {
		return o, err
	}
	if o.WorkDir, err = os.Getwd(); err != nil {
		return o, fmt.Errorf("find the working directory: %w", err)
	}
	o.Events = in.events
	if o.ClusterFor, err = clustersOf(s); err != nil {
		in.events.Warn("lint", "recipes are checked without cluster configurations: %v", err)
	}
	if s.File != "" && (in.siteWrong || len(o.Paths) == 0) {
		o.Site = shortPath(o.WorkDir, s.File)
	}
	if len(o.Paths) > 0 || in.siteWrong {
		return o, nil
	}
	for _, path := range nonEmpty(s.Matrix.Known(), s.Recipes.Known(), s.Clusters.Known(), s.ClustersV1.Known()) {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) { // what checks the site file tells of it
			o.Paths = append(o.Paths, shortPath(o.WorkDir, path))
		}
	}
	if !s.Matrix.Given() && !s.Recipes.Given() && !s.Clusters.Given() {
		o.Paths = []string{"."}
	}
	return o, nil
}

// shortPath is a path relative to dir if it lies below it.
func shortPath(dir, path string) string {
	if relative, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return path
}

type lintResult pipeline.LintReport

func (r lintResult) text(p *printer) {
	for _, problem := range r.Problems {
		p.printf("%s", problem)
	}
}

func checkedText(c pipeline.LintCounts) string {
	var parts []string
	for _, part := range []struct {
		n         int
		one, many string
	}{
		{c.Recipes, "recipe", "recipes"}, {c.Matrices, "matrix", "matrices"},
		{c.Clusters, "cluster configuration", "cluster configurations"}, {c.Sites, "site file", "site files"},
		{c.Targets, "target", "targets"},
	} {
		if part.n > 0 {
			parts = append(parts, count(part.n, part.one, part.many))
		}
	}
	if len(parts) == 0 {
		return "nothing checked"
	}
	return strings.Join(parts, ", ")
}

func findingsText(r pipeline.LintReport) string {
	if r.Errors == 0 && r.Warnings == 0 {
		return "nothing wrong"
	}
	return plural(r.Errors, "error") + ", " + plural(r.Warnings, "warning")
}
