package stack

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
)

// RuleSpackTooOld names the problem of a recipe whose Spack no builder works with.
const RuleSpackTooOld = "spack-too-old"

// spackVersion is the version of Spack as far as features depend on it.
type spackVersion struct{ major, minor int }

func (v spackVersion) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v spackVersion) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

var versionInCommit = regexp.MustCompile(`v?(\d+)\.(\d+)`)

// guessSpackVersion tells from the commit that a recipe pins which features its
// Spack has. What cannot be told is taken for a recent version, as upstream does.
func guessSpackVersion(r *recipe.Recipe, develop bool) (spackVersion, error) {
	if r.Version == 1 {
		return guessOldSpack(r.Spack.Commit, develop)
	}
	commit := r.Spack.Commit
	if develop || commit == nil || *commit == "develop" || *commit == "main" {
		return spackVersion{1, 2}, nil
	}
	if m := versionInCommit.FindStringSubmatch(*commit); m != nil {
		major, errMajor := strconv.Atoi(m[1])
		minor, errMinor := strconv.Atoi(m[2])
		if errMajor == nil && errMinor == nil {
			return spackVersion{major, minor}, nil
		}
	}
	return spackVersion{1, 1}, nil
}

func guessOldSpack(commit *string, develop bool) (spackVersion, error) {
	newest := spackVersion{0, 24}
	if develop || commit == nil || *commit == "develop" {
		return newest, nil
	}
	for minor := newest.minor; minor >= 21; minor-- {
		v := spackVersion{0, minor}
		if strings.Contains(*commit, v.String()) {
			return v, nil
		}
	}
	if strings.Contains(*commit, "0.20") {
		err := fault.New(fault.Invalid, "spack minimum version is v0.21 - recipe uses %s", *commit)
		return spackVersion{}, fault.WithHint(err, "pin Spack 0.21, 0.22 or 0.23 in config.yaml")
	}
	return newest, nil
}

// oldSpack tells whether a recipe of format 2 or 3 names a Spack before 1.0. That
// reads lists of repositories, knows compilers as no packages, and has no groups.
func (r *renderer) oldSpack() bool { return !r.version.atLeast(1, 0) }

// oldCompilerNames are what Spack before 1.0 calls the compilers of packages.
var oldCompilerNames = map[string]string{"llvm": "clang", "llvm-amdgpu": "rocmcc", "intel-oneapi-compilers": "oneapi"}

// oldCompilerName turns the spec of a compiler's package into that of the compiler.
func oldCompilerName(spec string) string {
	name, rest := cutPackage(spec)
	if other, ok := oldCompilerNames[name]; ok {
		name = other
	}
	return name + rest
}
