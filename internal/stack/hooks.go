package stack

import (
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/yamlpos"
)

// hooks renders the programs of the recipe that run before and after the build.
func (r *renderer) hooks() {
	r.tree.Hooks.PreInstall = r.hook("pre-install", r.recipe.PreInstall)
	r.tree.Hooks.PostInstall = r.hook("post-install", r.recipe.PostInstall)
}

func (r *renderer) hook(name string, hook *recipe.Hook) string {
	if hook == nil {
		return ""
	}
	file := "store/" + name + "-hook"
	r.tree.Files = append(r.tree.Files, File{Path: file, Mode: 0o755, Data: []byte(r.renderHook(hook))})
	return file
}

var (
	templateMark = regexp.MustCompile(`\{\{|\{%|\{#`)
	envReference = regexp.MustCompile(`^\{\{[ \t\n]*env[ \t\n]*\.[ \t\n]*(\w+)[ \t\n]*\}\}`)
	anyLineEnd   = strings.NewReplacer("\r\n", "\n", "\r", "\n")
)

// renderHook replaces {{ env.X }}, which is all of the Jinja template language
// that hooks use. Anything else that upstream would treat as a template is an
// error rather than text, since upstream would not leave it as it is.
func (r *renderer) renderHook(hook *recipe.Hook) string {
	build := r.tree.BuildDir
	known := map[string]string{
		"mount": r.mount, "config": path.Join(r.mount, "config"), "build": build, "spack": filepath.Join(build, "spack"),
	}
	text := strings.TrimSuffix(anyLineEnd.Replace(hook.Text), "\n") + "\n"
	var out strings.Builder
	for at := 0; ; {
		mark := templateMark.FindStringIndex(text[at:])
		if mark == nil {
			out.WriteString(text[at:])
			return out.String()
		}
		start := at + mark[0]
		out.WriteString(text[at:start])
		at = start + 2
		reference := envReference.FindStringSubmatch(text[start:])
		if reference == nil {
			r.fail(position(hook.Path, text, start), "only {{ env.mount }}, {{ env.config }}, {{ env.build }} and {{ env.spack }} are replaced",
				"template syntax '%s' is not supported in hooks", text[start:at])
			continue
		}
		value, ok := known[reference[1]]
		if !ok {
			names := []string{"build", "config", "mount", "spack"}
			r.fail(position(hook.Path, text, start), didYouMean(reference[1], names), "unknown name env.%s", reference[1])
		}
		out.WriteString(value)
		at = start + len(reference[0])
	}
}

// position is the place of an offset of a text, for messages.
func position(file, text string, offset int) *yamlpos.Node {
	before := text[:offset]
	return &yamlpos.Node{
		File:   file,
		Line:   strings.Count(before, "\n") + 1,
		Column: len([]rune(before[strings.LastIndex(before, "\n")+1:])) + 1,
	}
}

// scriptHook is the program of a script build. It runs from the copy of the
// recipe in the store, beside the files it needs, and is no template.
func (r *renderer) scriptHook() {
	if r.recipe.Build != nil {
		r.tree.Hooks.Build = "store/meta/recipe/" + filepath.Base(r.recipe.Build.Path)
	}
}
