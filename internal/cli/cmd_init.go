package cli

import (
	"cmp"
	"context"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/starter"
)

func initCommand() *command {
	return &command{
		name: "init", siteless: true, group: "Help", usage: "make a new recipe or site file to begin with",
		args: "(DIR | --site-file FILE)", maxArgs: 1,
		details: `Writes a small recipe with comments into the new directory DIR, and shows the next
commands. The recipe is complete: it can be checked, configured and built as it is.
Nothing is overwritten. Name, version and microarchitecture are taken from DIR if it is
named like recipes/NAME/VERSION or recipes/NAME/VERSION/UARCH.

Recipes of format 2 are for Spack 1.x, with which the direct engine is not proven yet;
--recipe-version 1 makes one for Spack 0.23.

--site-file writes a site file in which every key is shown and commented out; with
--registry it names that registry.`,
		examples: `uenv-ci init recipes/mytool/1.0/zen2
# for Spack 0.23
uenv-ci init recipes/mytool/1.0 --recipe-version 1
# software that Spack does not build
uenv-ci init recipes/sdk/25.10 --builder script --uarch gh200
uenv-ci init --site-file uenv-ci.yaml --registry registry.example.org/uenv`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "the name `N` of the uenv (else as DIR says)"},
			&cli.StringFlag{Name: "version", Usage: "the version `V` of the uenv (else as DIR says, or 1.0)"},
			&cli.StringFlag{Name: "system", Aliases: []string{"s"}, Usage: "the cluster `S` in the commands that are shown (else CLUSTER_NAME)"},
			&cli.StringFlag{Name: "uarch", Usage: "the microarchitecture `A` in these commands (else as DIR says)"},
			&cli.StringFlag{Name: "builder", Value: recipe.BuilderSpack, Usage: "make a recipe for the builder `spack|script`"},
			&cli.StringFlag{Name: "recipe-version", Usage: "the recipe's format `1|2`: for Spack 0.23, or 1.x (else 2)"},
			&cli.StringFlag{Name: "site-file", Usage: "write a site file to `FILE`"},
		},
		run: runInit,
	}
}

type initResult struct {
	Dir      string   `json:"dir,omitempty"`
	Files    []string `json:"files,omitempty"` // in Dir
	SiteFile string   `json:"site_file,omitempty"`
	Commands []string `json:"commands"` // what to do next
}

func runInit(_ context.Context, in *invocation) (result, error) {
	dir, siteFile := in.arg(0), in.String("site-file")
	switch {
	case (dir == "") == (siteFile == ""):
		return nil, usageError([]string{"init"}, "name either the new directory DIR or --site-file FILE")
	case siteFile != "":
		if err := in.writeSite(siteFile); err != nil {
			return nil, err
		}
		commands := []string{"uenv-ci lint " + quoted(siteFile), "uenv-ci --site " + quoted(siteFile) + " doctor"}
		return initResult{SiteFile: siteFile, Commands: commands}, nil
	}
	n, err := in.newRecipe(dir)
	if err != nil {
		return nil, err
	}
	files, err := n.Write()
	if err != nil {
		return nil, err
	}
	return initResult{Dir: dir, Files: files, Commands: n.commands()}, nil
}

// writeSite writes a site file, which everybody may read: no address with credentials.
func (in *invocation) writeSite(file string) error {
	address := in.String("registry")
	if address != "" {
		if err := registry.CheckAddress(address); err != nil {
			return err
		}
	}
	return starter.WriteSite(file, address)
}

// newRecipe is a recipe to be written, and what it will be built for.
type newRecipe struct {
	starter.Recipe
	system, uarch string
}

func (in *invocation) newRecipe(dir string) (newRecipe, error) {
	name, version, uarch := namesFrom(dir)
	n := newRecipe{
		Recipe: starter.Recipe{Dir: dir, Name: cmp.Or(in.String("name"), name), Version: cmp.Or(in.String("version"), version, "1.0")},
		system: cmp.Or(in.String("system"), in.getenv("CLUSTER_NAME")), uarch: cmp.Or(in.String("uarch"), uarch),
	}
	for flag, value := range map[string]string{"--system": n.system, "--uarch": n.uarch} {
		if value != "" && !label.Valid(value) {
			return n, usageError([]string{"init"}, "%s %q is not a name", flag, value)
		}
	}
	format := in.String("recipe-version")
	switch builder := in.String("builder"); {
	case builder == recipe.BuilderScript && format != "":
		return n, usageError([]string{"init"}, "--recipe-version is for --builder spack: recipes for scripts have none")
	case builder == recipe.BuilderScript:
		n.system, n.uarch = cmp.Or(n.system, "demo"), cmp.Or(n.uarch, runtime.GOARCH)
	case builder != recipe.BuilderSpack:
		return n, usageError([]string{"init"}, "--builder must be spack or script, not %q", builder)
	case format == "1":
		n.Format = 1
	case format == "2", format == "":
		n.Format = 2
	default:
		return n, usageError([]string{"init"}, "--recipe-version must be 1 or 2, not %q", format)
	}
	return n, nil
}

// numbered is what versions look like.
var numbered = regexp.MustCompile(`^v?[0-9]`)

// namesFrom reads name, version and microarchitecture off the directory of a recipe.
func namesFrom(dir string) (name, version, uarch string) {
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	last, above := filepath.Base(dir), filepath.Dir(dir)
	switch {
	case numbered.MatchString(last):
		return filepath.Base(above), last, ""
	case numbered.MatchString(filepath.Base(above)):
		return filepath.Base(filepath.Dir(above)), filepath.Base(above), last
	}
	return last, "", ""
}

// commands are what to do next. What nobody has told stands in capitals.
func (n newRecipe) commands() []string {
	dir, system, uarch := quoted(n.Dir), cmp.Or(n.system, "SYSTEM"), cmp.Or(n.uarch, "UARCH")
	results := "" // go beside the recipe, not into it
	if filepath.Clean(n.Dir) == "." {
		results = "../"
	}
	image := results + n.Name + ".squashfs"
	build := "uenv-ci build --recipe " + dir + " " + n.Name + "/" + n.Version + "@" + system + "%" + uarch + " --out " + image
	if n.Format == 0 {
		return []string{"uenv-ci lint " + dir, build, "uenv-ci test " + image + " --system " + system}
	}
	return []string{
		"uenv-ci lint " + dir,
		"uenv-ci configure --recipe " + dir + " --system " + system + " --uarch " + uarch + " --out " + results + n.Name + "-tree",
		build,
	}
}

var unquoted = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)

// quoted is a word for a shell.
func quoted(word string) string {
	if unquoted.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func (r initResult) text(p *printer) {
	for _, name := range r.Files {
		p.printf("%s", filepath.Join(r.Dir, name))
	}
	if r.SiteFile != "" {
		p.printf("%s", r.SiteFile)
	}
	p.printf("")
	p.printf("%s", p.bold("What to do next:"))
	placeholders := false
	for _, line := range r.Commands {
		p.printf("  %s", line)
		placeholders = placeholders || strings.Contains(line, "SYSTEM") || strings.Contains(line, "UARCH")
	}
	if placeholders {
		p.printf("%s", p.dim("SYSTEM and UARCH are the cluster and its microarchitecture. Its configuration is"))
		p.printf("%s", p.dim("found below 'clusters:' of the site file, else --cluster DIR names it."))
	}
}
