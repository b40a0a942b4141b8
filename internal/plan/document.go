package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/pathcheck"
	"uenv-ci.dev/internal/recipe"
)

// maxDocument bounds a plan that is read, in bytes.
const maxDocument = 64 << 20

// Parse reads a plan that was written as JSON. Its jobs are checked: what they name
// ends in paths, command lines and addresses of a registry.
func Parse(r io.Reader) (Plan, error) {
	var p Plan
	data, err := bounded.ReadAll(r, maxDocument)
	if err != nil {
		return p, fault.Wrap(fault.Invalid, err, "read the plan")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&p); err != nil {
		return p, fault.WithHint(fault.Wrap(fault.Invalid, err, "read the plan"), "'uenv-ci ci plan --format json' writes one")
	}
	if decoder.More() {
		return p, fault.New(fault.Invalid, "read the plan: there is more than one document")
	}
	switch {
	case p.Format > Format:
		return p, fault.WithHint(fault.New(fault.Invalid, "the plan has format %d, this program reads up to %d", p.Format, Format), "use a newer uenv-ci")
	case p.Format < 1:
		return p, fault.WithHint(fault.New(fault.Invalid, "this is no plan: it has no format"), "'uenv-ci ci plan --format json' writes one")
	}
	// As Make has them: lists that are empty rather than missing.
	p.Jobs, p.Dropped, p.Problems = append([]Job{}, p.Jobs...), append([]Dropped{}, p.Dropped...), append(fault.Problems{}, p.Problems...)
	seen := map[string]bool{}
	for _, j := range p.Jobs {
		err := j.check()
		if err == nil && seen[j.ID] {
			err = errors.New("it is there twice")
		}
		if err != nil {
			return p, fault.Wrap(fault.Invalid, err, "the plan's job %q", j.ID)
		}
		seen[j.ID] = true
	}
	return p, nil
}

var (
	variableName = regexp.MustCompile(`^[\w.-]+$`)
	contentKey   = regexp.MustCompile(`^([0-9a-f]{64})?$`)
)

// check refuses a job that no matrix can have led to.
func (j Job) check() error {
	for _, part := range []string{j.Name, j.Version, j.System, j.UArch} {
		if !label.Valid(part) {
			return errors.New("its name, version, system and uarch do not make a label")
		}
	}
	for name := range j.Variables {
		if !variableName.MatchString(name) {
			return errors.New("a variable has an impossible name")
		}
	}
	isLocal := filepath.IsLocal(j.Recipe) && !strings.ContainsFunc(j.Recipe, func(c rune) bool { return c < ' ' })
	switch {
	case j.ID != j.Label().String():
		return errors.New("its id is not that of its label, " + j.Label().String())
	case !isLocal:
		return errors.New("its recipe is not in the repository")
	case !contentKey.MatchString(j.Key):
		return errors.New("its key is no content key")
	case !slices.Contains([]string{recipe.BuilderSpack, recipe.BuilderScript}, j.Builder):
		return errors.New("its builder is neither spack nor script")
	}
	return pathcheck.MountPoint(j.Mount)
}

// Only keeps the jobs that are selected; the others are dropped.
func (p Plan) Only(s Selection) Plan {
	kept := p.empty()
	for _, j := range p.Jobs {
		if (s.Uenv == "" || s.Uenv == j.Name) && (s.Version == "" || s.Version == j.Version) && s.wantsTarget(j.System, j.UArch) {
			kept.Jobs = append(kept.Jobs, j)
		} else {
			kept.Dropped = append(kept.Dropped, Dropped{j.ID, j.Key, "not selected"})
		}
	}
	return kept
}
