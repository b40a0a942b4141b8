package cli

import (
	"fmt"
	"strings"
	"time"

	"uenv-ci.dev/internal/meta"
)

// origin shows how an image was made and what is in it.
func (r inspectResult) origin(p *printer) {
	if r.Provenance != nil {
		p.printf("  built %s", originText(*r.Provenance))
		for _, d := range r.Provenance.Predicate.BuildDefinition.ResolvedDependencies {
			p.printf("    %s", dependencyText(d))
		}
	}
	if len(r.Packages) == 0 {
		return
	}
	p.printf("  packages")
	for _, pkg := range r.Packages {
		line := "    " + pkg.Name + "@" + pkg.Version
		if pkg.External {
			line += p.dim(" of the system")
		}
		p.printf("%s", line)
	}
}

// originText says when, by what and where.
func originText(s meta.Provenance) string {
	details := s.Predicate.RunDetails
	text := details.Metadata.StartedOn.Format(time.DateOnly)
	if version := details.Builder.Version[programName]; version != "" {
		text += " by " + programName + " " + version
	}
	if host, ok := s.Predicate.BuildDefinition.InternalParameters["host"].(map[string]any); ok && host["name"] != nil {
		text += fmt.Sprintf(" on %v", host["name"])
	}
	if details.Metadata.InvocationID != "" {
		text += " (" + details.Metadata.InvocationID + ")"
	}
	return text
}

// dependencyText names something that was used, and its revision.
func dependencyText(r meta.Resource) string {
	parts := []string{r.Name}
	if version, ok := r.Annotations["version"].(string); ok {
		parts = append(parts, version)
	}
	if commit := r.Digest["gitCommit"]; commit != "" {
		parts = append(parts, commit[:min(12, len(commit))])
	}
	if dirty, _ := r.Annotations["dirty"].(bool); dirty {
		parts = append(parts, "with changes")
	}
	if r.URI != "" {
		parts = append(parts, strings.TrimPrefix(r.URI, "git+"))
	}
	return strings.Join(parts, " ")
}
