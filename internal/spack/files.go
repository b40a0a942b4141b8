package spack

import (
	"encoding/json"
	"fmt"
	"os"
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

// ReadLock reads spack.lock (format versions 4 to 6).
func ReadLock(file string) (Lock, error) {
	var doc struct {
		Roots []struct {
			Hash string `json:"hash"`
			Spec string `json:"spec"`
		} `json:"roots"`
		Specs map[string]node `json:"concrete_specs"`
	}
	if err := readJSON(file, &doc); err != nil {
		return Lock{}, err
	}
	l := Lock{Specs: map[string]Spec{}}
	for _, r := range doc.Roots {
		l.Roots = append(l.Roots, Root{Spec: r.Spec, Hash: r.Hash})
	}
	for hash, n := range doc.Specs {
		l.Specs[hash] = n.spec(hash)
	}
	return l, nil
}

// ReadDatabase reads what is installed below an install tree, sorted by name,
// version and hash. A tree without a database is empty.
func ReadDatabase(tree string) ([]Spec, error) {
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
	file := tree + "/.spack-db/index.json"
	if _, err := os.Stat(file); os.IsNotExist(err) {
		return nil, nil
	}
	if err := readJSON(file, &doc); err != nil {
		return nil, err
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

// maxFile bounds the size of the files of Spack that are read: a stack of a
// thousand packages has a few megabytes.
const maxFile = 256 << 20

func readJSON(file string, doc any) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("read Spack's files: %w", err)
	}
	if info.Size() > maxFile {
		return fmt.Errorf("read Spack's files: %s is larger than %d MiB", file, maxFile>>20)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read Spack's files: %w", err)
	}
	if err := json.Unmarshal(data, doc); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}
