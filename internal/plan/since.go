package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxReasons bounds how many changes of one job are named.
const maxReasons = 10

// Since keeps the jobs of p that a plan of an earlier revision, made with the
// same selection, does not have or has with another key. Their reasons say what
// changed; the others are dropped.
func (p Plan) Since(before Plan, revision string) Plan {
	old := map[string]Job{}
	for _, j := range before.Jobs {
		old[j.ID] = j
	}
	kept := p.empty()
	for _, j := range p.Jobs {
		b, ok := old[j.ID]
		if !ok {
			j.Reasons = []string{"new since " + revision}
			kept.Jobs = append(kept.Jobs, j)
		} else if changes := changes(b, j); len(changes) > 0 {
			j.Reasons = changes
			kept.Jobs = append(kept.Jobs, j)
		} else {
			kept.Dropped = append(kept.Dropped, Dropped{j.ID, j.Key, "unchanged since " + revision})
		}
	}
	return kept
}

// WithoutBuilt drops the jobs whose image exists: built tells, by id,
// where it is.
func (p Plan) WithoutBuilt(built map[string]string) Plan {
	kept := p.empty()
	for _, j := range p.Jobs {
		if where, ok := built[j.ID]; ok {
			kept.Dropped = append(kept.Dropped, Dropped{j.ID, j.Key, "already built: " + where})
		} else {
			kept.Jobs = append(kept.Jobs, j)
		}
	}
	return kept
}

// empty returns the plan without its jobs, to be filled again.
func (p Plan) empty() Plan {
	p.Jobs, p.Dropped = []Job{}, slices.Clone(p.Dropped)
	return p
}

// changes says in which of their ingredients two jobs differ.
func changes(before, now Job) []string {
	old, current := values(before.parts), values(now.parts)
	names := map[string]bool{}
	for _, m := range []map[string]string{old, current} {
		for name := range maps.Keys(m) {
			names[name] = true
		}
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, had := old[name]
		is, has := current[name]
		if was != is || had != has {
			found = append(found, describe(now, name, was, is))
		}
	}
	if len(found) > maxReasons {
		more := len(found) - maxReasons
		found = append(found[:maxReasons], fmt.Sprintf("and %d more", more))
	}
	return found
}

// values are the ingredients by name. Directories are told by what they hold;
// only an empty one counts on its own.
func values(parts []Part) map[string]string {
	m := make(map[string]string, len(parts))
	for i, p := range parts {
		if p.Value == directory && i+1 < len(parts) && strings.HasPrefix(parts[i+1].Name, strings.TrimSuffix(p.Name, "./")) {
			continue
		}
		m[p.Name] = p.Value
	}
	return m
}

// describe says what became of one ingredient of a job.
func describe(j Job, name, was, is string) string {
	kind, file, _ := strings.Cut(name, "/")
	switch kind {
	case "recipe":
		return change(was, is) + ": " + j.Recipe + "/" + file
	case "cluster":
		return change(was, is) + ": " + file + " of the cluster configuration of " + j.System
	case "source", "variable", "packing":
		name = file
	}
	return fmt.Sprintf("changed: %s from '%s' to '%s'", name, was, is)
}

func change(was, is string) string {
	switch {
	case was == "":
		return "added"
	case is == "":
		return "removed"
	}
	return "changed"
}
