package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// StackFormat is the version of what is made from a recipe. It is raised when
// the same inputs are to give another image, and changes every content key.
const StackFormat = 2

// KeyInput is everything that determines an image.
type KeyInput struct {
	Recipe  []FileDigest // of the recipe directory
	Cluster []FileDigest // of the cluster configuration that applies to the recipe
	System  string
	UArch   string
	Mount   string
	// Sources are Spack and the package repositories, resolved to commits.
	Sources []Source
	// Variables are passed to the build. Secrets do not belong here: they must
	// not determine an image.
	Variables map[string]string
	Packing   Packing
}

// Source is a git repository that a build takes its packages or its tools from.
type Source struct {
	Name string `json:"name"` // "spack" or the name of a package repository
	Repo string `json:"repo"` // URL
	// Ref is what the recipe pins: a branch, tag or commit; "" for the default branch.
	Ref string `json:"ref,omitempty"`
	// Commit is what Ref stands for, "" if that could not be found out.
	Commit string `json:"commit,omitempty"`
}

// Packing says how a store is packed. Every part of it changes the image's bytes.
type Packing struct {
	Codec        string `json:"codec"`
	CodecVersion string `json:"codec_version"`
	Level        int    `json:"level"`
	BlockSize    int    `json:"block_size"` // bytes
}

// Part is one ingredient of a key.
type Part struct {
	Name  string `json:"name"` // such as "recipe/config.yaml" or "mount"
	Value string `json:"value"`
}

// Parts lists the ingredients of the key by name. Comparing those of two keys
// tells why they differ.
func (in KeyInput) Parts() []Part {
	parts := []Part{
		{"format", strconv.Itoa(StackFormat)},
		{"system", in.System},
		{"uarch", in.UArch},
		{"mount", in.Mount},
		{"packing/codec", in.Packing.Codec},
		{"packing/codec-version", in.Packing.CodecVersion},
		{"packing/level", strconv.Itoa(in.Packing.Level)},
		{"packing/block-size", strconv.Itoa(in.Packing.BlockSize)},
	}
	for _, f := range in.Recipe {
		parts = append(parts, Part{"recipe/" + f.Path, f.Digest})
	}
	for _, f := range in.Cluster {
		parts = append(parts, Part{"cluster/" + f.Path, f.Digest})
	}
	for _, s := range in.Sources {
		parts = append(parts, Part{"source/" + s.Name, cmp.Or(s.Commit, "unresolved "+s.Ref)})
	}
	for name, value := range maps.All(in.Variables) {
		parts = append(parts, Part{"variable/" + name, value})
	}
	slices.SortFunc(parts, func(a, b Part) int { return cmp.Compare(a.Name, b.Name) })
	return parts
}

// Key returns the content key of an image: 64 hexadecimal digits, equal
// whenever the image is made from equal inputs, wherever and whenever that is.
// Without all commits there is no key: it is "" and unresolved says why.
func Key(in KeyInput) (key string, unresolved []string) {
	for _, s := range in.Sources {
		if s.Commit == "" {
			unresolved = append(unresolved, fmt.Sprintf("%s: '%s' of %s is not resolved to a commit", s.Name, cmp.Or(s.Ref, "HEAD"), s.Repo))
		}
	}
	if len(unresolved) > 0 {
		return "", unresolved
	}
	hash := sha256.New()
	write := func(s string) {
		// The length first: otherwise parts could be shifted into one another.
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		hash.Write([]byte(s))
	}
	write("uenv-ci content key")
	for _, p := range in.Parts() {
		write(p.Name)
		write(p.Value)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
