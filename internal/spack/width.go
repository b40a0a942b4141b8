package spack

// Width returns how many packages of an environment can be built at the same time, at
// most, by what they need of each other. Those that are there, such as externals and
// what a build cache has, do not count.
func (l Lock) Width(there func(Spec) bool) int {
	below := map[string][]string{} // of each package to build, all that it needs of these
	for hash, s := range l.Specs {
		if !s.External && !there(s) {
			below[hash] = nil
		}
	}
	for hash := range below {
		seen := map[string]bool{hash: true}
		l.visit(hash, seen)
		for needed := range seen {
			if _, ok := below[needed]; ok && needed != hash {
				below[hash] = append(below[hash], needed)
			}
		}
	}
	return len(below) - matching(below)
}

// visit notes everything that a package needs, directly or not.
func (l Lock) visit(hash string, seen map[string]bool) {
	for _, needed := range l.Specs[hash].Needs {
		if !seen[needed] {
			seen[needed] = true
			l.visit(needed, seen)
		}
	}
}

// matching returns how many packages can be given one of those below them so that
// none is given twice. As many chains fewer cover all packages, and no two of those
// that can be built at the same time are in one chain: by Dilworth's theorem the
// least number of chains is the greatest number of such packages.
func matching(below map[string][]string) (size int) {
	above := map[string]string{} // of a package that is given, to which
	var give func(to string, tried map[string]bool) bool
	give = func(to string, tried map[string]bool) bool {
		for _, hash := range below[to] {
			if tried[hash] {
				continue
			}
			tried[hash] = true
			if holder, taken := above[hash]; !taken || give(holder, tried) {
				above[hash] = to
				return true
			}
		}
		return false
	}
	for to := range below {
		if give(to, map[string]bool{}) {
			size++
		}
	}
	return size
}
