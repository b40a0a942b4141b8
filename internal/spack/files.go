package spack

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Spec is a concrete spec: a package as it was, or will be, installed.
type Spec struct {
	Name, Version string
	Hash          string
	Compiler      string // name@version, "" for packages that have none
	Prefix        string // only from a Database, and of externals
	External      bool   // of the system
	Explicit      bool   // only from a Database: asked for, not a mere dependency
	// Needs are the hashes of the specs that it depends on in any way, building
	// included. Only from a Lock.
	Needs []string
}

// node is a concrete spec as Spack's files hold it.
type node struct {
	Name     string  `json:"name"`
	Version  version `json:"version"`
	Compiler *struct {
		Name    string  `json:"name"`
		Version version `json:"version"`
	} `json:"compiler"`
	External *struct {
		Path *string `json:"path"`
	} `json:"external"`
	Dependencies []struct {
		Hash string `json:"hash"`
	} `json:"dependencies"`
}

// version is text, or a number that was meant as one.
type version string

func (v *version) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		s = string(data)
	}
	*v = version(s)
	return nil
}

func (n node) spec(hash string) Spec {
	s := Spec{Name: n.Name, Version: string(n.Version), Hash: hash}
	if n.Compiler != nil {
		s.Compiler = n.Compiler.Name + "@" + string(n.Compiler.Version)
	}
	if n.External != nil {
		s.External = true
		if n.External.Path != nil {
			s.Prefix = *n.External.Path
		}
	}
	return s
}

// Lock is the result of a concretization.
type Lock struct {
	Roots []Root
	Specs map[string]Spec // by hash
}

// Root is a spec that an environment asks for.
type Root struct {
	Spec string // as the environment says it
	Hash string
}

// ParseLock reads the text of a spack.lock (format versions 4 to 6).
func ParseLock(text []byte) (Lock, error) {
	var doc struct {
		Roots []struct {
			Hash string `json:"hash"`
			Spec string `json:"spec"`
		} `json:"roots"`
		Specs map[string]node `json:"concrete_specs"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return Lock{}, fmt.Errorf("read spack.lock: %w", err)
	}
	l := Lock{Specs: map[string]Spec{}}
	for _, r := range doc.Roots {
		l.Roots = append(l.Roots, Root{Spec: r.Spec, Hash: r.Hash})
	}
	for hash, n := range doc.Specs {
		s := n.spec(hash)
		for _, d := range n.Dependencies {
			s.Needs = append(s.Needs, d.Hash)
		}
		l.Specs[hash] = s
	}
	return l, nil
}

// DatabaseFile is where an install tree has its database.
const DatabaseFile = ".spack-db/index.json"

// ParseDatabase reads from the text of a database what is installed, sorted by
// name, version and hash.
func ParseDatabase(text []byte) ([]Spec, error) {
	var doc struct {
		Database struct {
			Installs map[string]struct {
				Spec      node   `json:"spec"`
				Path      string `json:"path"`
				Installed bool   `json:"installed"`
				Explicit  bool   `json:"explicit"`
			} `json:"installs"`
		} `json:"database"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("read Spack's database: %w", err)
	}
	var specs []Spec
	for hash, record := range doc.Database.Installs {
		if !record.Installed {
			continue
		}
		s := record.Spec.spec(hash)
		s.Prefix, s.Explicit = record.Path, record.Explicit
		specs = append(specs, s)
	}
	Sort(specs)
	return specs, nil
}

// Sort sorts specs by name, version and hash.
func Sort(specs []Spec) {
	slices.SortFunc(specs, func(a, b Spec) int {
		return strings.Compare(a.Name+"\x00"+a.Version+"\x00"+a.Hash, b.Name+"\x00"+b.Version+"\x00"+b.Hash)
	})
}
