package cli

import (
	"context"
	"fmt"

	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/site"
)

func doctorCommand() *command {
	return &command{
		name: "doctor", group: "Help", usage: "show what is available on this machine",
		details: "No command needs all of it; each line says what happens without it.",
		examples: `uenv-ci doctor
uenv-ci doctor --site site.yaml --format json`,
		run: runDoctor,
	}
}

type doctorResult struct {
	Checks []pipeline.Check `json:"checks"`
}

func runDoctor(ctx context.Context, in *invocation) (result, error) {
	of := in.site.Build
	checks := pipeline.Doctor(ctx, pipeline.DoctorOptions{
		BuildRoot: of.Root.Known(), Environ: in.environ, Mirrors: of.Mirrors.Known(), ChangeCache: of.ChangeCache.Known(),
	})
	return doctorResult{append(checks, siteCheck(in.site))}, nil
}

// siteCheck says which site file applies, and what of it cannot be used here.
func siteCheck(s *site.Site) pipeline.Check {
	check := pipeline.Check{Name: "site file", OK: len(s.Unset) == 0, Detail: s.File}
	if s.File == "" {
		check.Detail = "there is none: flags, the environment and the uenv client's configuration name everything"
	}
	for _, p := range s.Unset {
		check.Detail += fmt.Sprintf("; line %d: %s", p.Line, p.Message)
	}
	return check
}

func (r doctorResult) text(p *printer) {
	for _, c := range r.Checks {
		p.printf("%s %-14s %s", p.mark(c.OK), c.Name, c.Detail)
	}
}
