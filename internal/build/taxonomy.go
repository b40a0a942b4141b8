package build

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/yamlpos"
)

//go:embed errors.yaml
var taxonomyText []byte

// class is a kind of error that builds fail with.
type class struct {
	name, says, hint string
	kind             fault.Kind
	retry            bool
	spack            bool             // only Spack fails like this
	message          []*regexp.Regexp // for what Spack, git or a hook said
	log              []*regexp.Regexp // for the log of a package
}

// Classes of errors that are told by other signs than a pattern.
const (
	classHook    = "hook"
	classPackage = "package"
	classTimeout = "timeout"
	classMemory  = "out-of-memory"
	classDisk    = "disk-full"
	classSpack   = "spack"
	classView    = "view"
	classOther   = "other"
)

// taxonomy returns the classes in the order in which they are tried.
func taxonomy() ([]class, error) { return parseTaxonomy(taxonomyText) }

func parseTaxonomy(text []byte) ([]class, error) {
	doc, err := yamlpos.Parse("errors.yaml", text)
	if err != nil {
		return nil, err
	}
	list := doc.Get("classes")
	if list == nil || list.Kind != yamlpos.Sequence {
		return nil, fmt.Errorf("errors.yaml: no list 'classes'")
	}
	var classes []class
	for _, item := range list.Items {
		c, err := parseClass(item)
		if err != nil {
			return nil, fmt.Errorf("errors.yaml:%d: %w", item.Line, err)
		}
		classes = append(classes, c)
	}
	return classes, nil
}

func parseClass(item *yamlpos.Node) (c class, err error) {
	c.name, _ = item.Get("name").Str()
	c.says, _ = item.Get("says").Str()
	c.hint, _ = item.Get("hint").Str()
	if retry := item.Get("retry"); retry != nil {
		c.retry = retry.Value == true
	}
	if only := item.Get("spack"); only != nil {
		c.spack = only.Value == true
	}
	switch kind, ok := item.Get("kind").Str(); {
	case !ok:
	case kind == "network":
		c.kind = fault.Network
	default:
		return c, fmt.Errorf("unknown kind %q", kind)
	}
	if c.name == "" || c.says == "" {
		return c, fmt.Errorf("a class needs 'name' and 'says'")
	}
	if c.message, err = patterns(item.Get("message")); err == nil {
		c.log, err = patterns(item.Get("log"))
	}
	if err == nil && len(c.message)+len(c.log) == 0 {
		err = fmt.Errorf("the class %s has no patterns", c.name)
	}
	return c, err
}

func patterns(list *yamlpos.Node) ([]*regexp.Regexp, error) {
	if list == nil {
		return nil, nil
	}
	var found []*regexp.Regexp
	for _, item := range list.Items {
		text, ok := item.Str()
		if !ok {
			return nil, fmt.Errorf("line %d: a pattern is not text", item.Line)
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", item.Line, err)
		}
		found = append(found, re)
	}
	return found, nil
}

// finding is where a class was recognized: the line of the log, -1 if it was
// the message.
type finding struct {
	class
	line int
}

// classify finds the class of an error by what Spack said of it, and by the log
// of the package that failed.
func classify(classes []class, message, log []string) (finding, bool) {
	for _, c := range classes {
		if line := firstMatch(c.log, log); line >= 0 {
			return finding{c, line}, true
		}
		if firstMatch(c.message, message) >= 0 {
			return finding{c, -1}, true
		}
	}
	return finding{line: -1}, false
}

// classifyProgram finds the class of an error of another program by what it said.
func classifyProgram(classes []class, said []string) (finding, bool) {
	for _, c := range classes {
		if c.spack {
			continue
		}
		if line := firstMatch(slices.Concat(c.message, c.log), said); line >= 0 {
			return finding{c, line}, true
		}
	}
	return finding{line: -1}, false
}

// firstMatch returns the first line that any of the patterns matches, -1 if none does.
func firstMatch(patterns []*regexp.Regexp, lines []string) int {
	for i, line := range lines {
		for _, p := range patterns {
			if p.MatchString(line) {
				return i
			}
		}
	}
	return -1
}
