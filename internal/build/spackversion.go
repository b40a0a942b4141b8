package build

import (
	"fmt"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/spack"
)

// No build has been proven with Spack of this version or later, as none was available.
const provenMajor, provenMinor = 1, 0

// unproven is what a build by the direct engine with a newer Spack is told, once.
const unproven = "the direct engine is not yet proven with Spack 1.x: --engine stackinator builds with the makefiles that the field uses"

// accept refuses a Spack that cannot read the build tree.
func (b *spackBuild) accept(in spack.Installation) error {
	if err := in.Reads(b.tree.Version); err != nil {
		return fault.WithHint(err, "docs/recipes.md says which Spack reads which format")
	}
	wanted, err := spack.ParseVersion(b.tree.SpackVersion + ".0")
	if err != nil {
		return fmt.Errorf("the build tree names no Spack: %w", err)
	}
	if isNew(wanted) != isNew(in.Version) {
		return fault.WithHint(
			fault.New(fault.Invalid, "the recipe is for Spack %s, and %s is %s", b.tree.SpackVersion, in.Source, in.Version),
			"name another with --spack, or let spack.commit in config.yaml name that version, such as v%s", in.Version)
	}
	if !isNew(in.Version) {
		return nil
	}
	b.Events.Warn("spack", "%s", unproven)
	if b.Stack.Mirrors != nil && b.Stack.Mirrors.BuildCache != nil || b.ChangeCache != nil {
		return fault.WithHint(fault.New(fault.Invalid, "the direct engine does not know the build caches of Spack %s", in.Version),
			"leave --mirrors and --change-cache out, and those of the site file")
	}
	return nil
}

func isNew(v spack.Version) bool { return v.AtLeast(provenMajor, provenMinor) }

// installFlags returns the flags of `spack install` for each process of an installation,
// given the share of the jobs that each process has.
func (b *spackBuild) installFlags(shares []int) [][]string {
	jobs := func(n int) []string { return []string{"--jobs", fmt.Sprint(n)} }
	switch {
	case !isNew(b.spack.Version):
		var flags [][]string
		for _, n := range shares {
			flags = append(flags, jobs(n))
		}
		return flags
	case b.tree.Version == 3:
		// Its installer builds packages at the same time, and shares the jobs.
		return [][]string{jobs(b.jobs())}
	default:
		return [][]string{append(jobs(shares[0]), "--concurrent-packages", fmt.Sprint(len(shares)))}
	}
}
