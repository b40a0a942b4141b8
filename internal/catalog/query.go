package catalog

import (
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Query is a condition on a package, written as a spec of Spack:
//
//	hdf5            any version
//	hdf5@1.14       1.14 and what begins with it, such as 1.14.3
//	hdf5@=1.14      exactly that
//	hdf5@1.12:1.14  a range with both ends; one end may be missing; lists with commas
//	+mpi ~shared    variants that are on, off
//	api=v110        variants with a value
//	%gcc@13         the compiler
type Query struct {
	name     string
	versions []versionRange // any of them; none is every version
	variants map[string]string
	compiler *Query
}

// versionRange is from low to high, both with what begins with them; "" is open.
type versionRange struct {
	low, high string
	exact     bool
}

// ParseQuery reads a condition. An error is of kind Usage.
func ParseQuery(text string) (Query, error) {
	q := Query{variants: map[string]string{}}
	fail := func(reason string) (Query, error) {
		err := fault.New(fault.Usage, "%q is not a condition on a package: %s", text, reason)
		return Query{}, fault.WithHint(err, "write it like a Spack spec: hdf5@1.14 +mpi %%gcc")
	}
	rest := strings.TrimSpace(text)
	name, rest := cutWord(rest)
	if name == "" {
		return fail("it has no name")
	}
	q.name = name
	for rest = strings.TrimLeft(rest, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		mark := rest[0]
		if strings.IndexByte("@+~-%", mark) < 0 {
			key, after := cutWord(rest)
			value, ok := strings.CutPrefix(after, "=")
			if key == "" || !ok {
				return fail("what is " + rest + "?")
			}
			end := strings.IndexByte(value+" ", ' ')
			q.variants[key], rest = value[:end], value[end:]
			continue
		}
		rest = rest[1:]
		if mark == '%' {
			end := strings.IndexByte(rest+" ", ' ')
			compiler, err := ParseQuery(rest[:end])
			if err != nil {
				return fail("its compiler is not one")
			}
			q.compiler, rest = &compiler, rest[end:]
			continue
		}
		if mark == '@' {
			end := strings.IndexAny(rest+" ", " +~%")
			q.versions, rest = parseVersions(rest[:end]), rest[end:]
			if q.versions == nil {
				return fail("the version is missing")
			}
			continue
		}
		variant, after := cutWord(rest)
		if variant == "" {
			return fail("a variant has no name")
		}
		q.variants[variant], rest = map[bool]string{true: "true", false: "false"}[mark == '+'], after
	}
	return q, nil
}

// cutWord cuts a name off the front.
func cutWord(s string) (word, rest string) {
	end := strings.IndexFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-'
	})
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

func parseVersions(s string) []versionRange {
	var all []versionRange
	for part := range strings.SplitSeq(s, ",") {
		if exact, ok := strings.CutPrefix(part, "="); ok && exact != "" {
			all = append(all, versionRange{exact, exact, true})
			continue
		}
		low, high, isRange := strings.Cut(part, ":")
		if !isRange {
			high = low
		}
		if low == "" && high == "" && !isRange {
			return nil
		}
		all = append(all, versionRange{low, high, false})
	}
	return all
}

func (r versionRange) contains(version string) bool {
	if r.exact {
		return version == r.low
	}
	if r.low != "" && label.CompareVersions(version, r.low) < 0 && !beginsWith(version, r.low) {
		return false
	}
	return r.high == "" || label.CompareVersions(version, r.high) <= 0 || beginsWith(version, r.high)
}

// beginsWith tells whether a version is a prefix or a further part of it.
func beginsWith(version, prefix string) bool {
	rest, ok := strings.CutPrefix(version, prefix)
	return ok && (rest == "" || strings.IndexByte(".-_", rest[0]) >= 0)
}

// Match tells whether a package meets the condition. A variant that the package
// does not have is not met, neither on nor off.
func (q Query) Match(p Package) bool {
	if p.Name != q.name || !q.matchVersion(p.Version) {
		return false
	}
	for name, want := range q.variants {
		got, ok := p.Variants[name]
		if !ok || got != want && !slices.Contains(strings.Split(got, ","), want) {
			return false
		}
	}
	if q.compiler == nil {
		return true
	}
	name, version, _ := strings.Cut(p.Compiler, "@")
	return name == q.compiler.name && q.compiler.matchVersion(version)
}

func (q Query) matchVersion(version string) bool {
	return len(q.versions) == 0 || slices.ContainsFunc(q.versions, func(r versionRange) bool { return r.contains(version) })
}

// NeedsSpecs tells whether names and versions do not suffice to decide.
func (q Query) NeedsSpecs() bool { return len(q.variants) > 0 || q.compiler != nil }
