package recipe

import (
	"strings"

	"uenv-ci.dev/internal/yamlpos"
)

// compilerOrder is the order in which compilers of versions 2 and 3 are built.
var compilerOrder = []string{"gcc", "nvhpc", "llvm", "llvm-amdgpu", "intel-oneapi-compilers"}

// readCompilers takes over compilers.yaml.
func (l *loader) readCompilers() {
	c := &l.recipe.Compilers
	if l.recipe.Version == 1 {
		c.Bootstrap = l.compilers.Get("bootstrap").Get("spec").Text()
		c.GCC = l.compilers.Get("gcc").Get("specs").Texts()
		llvm := l.compilers.Get("llvm")
		c.LLVM = llvm.Get("specs").Texts()
		c.LLVMRequires = llvm.Get("requires").Text()
		l.checkRequires(llvm.Get("requires"))
		return
	}
	for _, name := range compilerOrder {
		n := l.compilers.Get(name)
		if n.IsNull() {
			continue
		}
		c.V2 = append(c.V2, l.compiler(name, n))
	}
}

func (l *loader) compiler(name string, n *yamlpos.Node) Compiler {
	c := Compiler{Name: name, Version: n.Get("version").Text(), Spec: n.Get("spec").OptionalText()}
	if c.Version != "system" || name != "gcc" || l.recipe.Version != 3 {
		return c
	}
	if c.Spec != nil && *c.Spec != "" {
		l.Warn(n.Key("spec"), "ignored-key", "", "'spec' has no effect on the cluster's own gcc")
	}
	return Compiler{Name: name, System: true}
}

// checkRequires warns if the gcc that is to build llvm is none of group gcc.
func (l *loader) checkRequires(requires *yamlpos.Node) {
	spec := requires.Text()
	if spec == "" {
		return
	}
	for _, gcc := range l.recipe.Compilers.GCC {
		if gcc == spec || strings.HasPrefix(gcc, spec+".") || strings.HasPrefix(spec, gcc+".") {
			return
		}
	}
	l.Warn(requires, "llvm-requires", "add it to 'gcc: specs'", "'%s', which is to build llvm, is not among the compilers of gcc", spec)
}

// compilerGroups returns the names that environments can list as compilers.
func (l *loader) compilerGroups() []string {
	c := l.recipe.Compilers
	if l.recipe.Version == 1 {
		groups := []string{"bootstrap", "gcc"}
		if len(c.LLVM) > 0 {
			groups = append(groups, "llvm")
		}
		return groups
	}
	groups := make([]string, len(c.V2))
	for i := range c.V2 {
		groups[i] = c.V2[i].Name
	}
	return groups
}
