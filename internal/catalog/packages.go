package catalog

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Package is an installed package of an image: a concrete spec of Spack.
type Package struct {
	Name     string            `json:"name"`
	Version  string            `json:"version"`
	Hash     string            `json:"hash,omitempty"`
	Compiler string            `json:"compiler,omitempty"` // name@version, "" if it has none or nobody says
	Target   string            `json:"target,omitempty"`
	Variants map[string]string `json:"variants,omitempty"` // "true" and "false" are those that + and ~ switch
	Explicit bool              `json:"explicit,omitempty"` // asked for, not a mere dependency
	External bool              `json:"external,omitempty"` // of the system, not in the image
}

// String writes the package as a spec.
func (p Package) String() string {
	text := p.Name + "@" + p.Version
	for _, name := range slices.Sorted(maps.Keys(p.Variants)) {
		text += variantText(name, p.Variants[name])
	}
	if p.Compiler != "" {
		text += " %" + p.Compiler
	}
	return text
}

func variantText(name, value string) string {
	switch value {
	case "true":
		return "+" + name
	case "false":
		return "~" + name
	}
	return " " + name + "=" + value
}

// DatabaseFile is where a Spack store says what is installed in it.
const DatabaseFile = ".spack-db/index.json"

// database is Spack's install database, of versions 5 to 8 (spack.database).
type database struct {
	Database struct {
		Installs map[string]struct {
			Spec      spec `json:"spec"`
			Installed bool `json:"installed"`
			Explicit  bool `json:"explicit"`
		} `json:"installs"`
	} `json:"database"`
}

// spec is a concrete spec in it.
type spec struct {
	Name     string `json:"name"`
	Version  any    `json:"version"`
	Compiler *struct {
		Name    string `json:"name"`
		Version any    `json:"version"`
	} `json:"compiler"` // before Spack 1.0
	Arch         map[string]any  `json:"arch"`
	Parameters   map[string]any  `json:"parameters"`
	External     json.RawMessage `json:"external"`
	Dependencies []dependency    `json:"dependencies"`
}

type dependency struct {
	Name       string `json:"name"`
	Hash       string `json:"hash"`
	Parameters struct {
		Virtuals []string `json:"virtuals"`
	} `json:"parameters"`
}

// ParseDatabase reads Spack's install database; what was removed again is left
// out. The packages are ordered by name, version and hash.
func ParseDatabase(data []byte) ([]Package, error) {
	var doc database
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", DatabaseFile, err)
	}
	packages := []Package{}
	for hash, install := range doc.Database.Installs {
		if !install.Installed {
			continue
		}
		s := install.Spec
		p := Package{
			Name: s.Name, Version: scalar(s.Version), Hash: hash, Variants: s.variants(), Explicit: install.Explicit,
			External: len(s.External) > 0 && string(s.External) != "null", Compiler: doc.compilerOf(s), Target: target(s.Arch),
		}
		packages = append(packages, p)
	}
	slices.SortFunc(packages, comparePackages)
	return packages, nil
}

func comparePackages(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), label.CompareVersions(a.Version, b.Version), cmp.Compare(a.Hash, b.Hash))
}

// compilerOf names the compiler of a spec: a member of it before Spack 1.0, since
// then the dependency that provides a language.
func (d database) compilerOf(s spec) string {
	if s.Compiler != nil {
		return s.Compiler.Name + "@" + scalar(s.Compiler.Version)
	}
	for _, language := range []string{"c", "cxx", "fortran"} {
		for _, dep := range s.Dependencies {
			if slices.Contains(dep.Parameters.Virtuals, language) {
				return dep.Name + "@" + scalar(d.Database.Installs[dep.Hash].Spec.Version)
			}
		}
	}
	return ""
}

// notVariants are parameters that every spec has.
var notVariants = []string{"cflags", "cppflags", "cxxflags", "fflags", "ldflags", "ldlibs", "build_system", "patches", "dev_path"}

func (s spec) variants() map[string]string {
	found := map[string]string{}
	for name, value := range s.Parameters {
		if text := scalar(value); text != "" && !slices.Contains(notVariants, name) {
			found[name] = text
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found
}

func target(arch map[string]any) string {
	if m, ok := arch["target"].(map[string]any); ok {
		return scalar(m["name"])
	}
	return scalar(arch["target"])
}

// scalar writes a value of the database as text.
func scalar(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		var parts []string
		for _, item := range v {
			parts = append(parts, scalar(item))
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(value)
}
