package cli

import (
	"context"

	"uenv-ci.dev/internal/pipeline"
)

func doctorCommand() *command {
	return &command{
		name: "doctor", group: "Help", usage: "show what the program can use on this machine",
		details: "Nothing of it is needed by every command; each line says what is done without it.",
		run:     runDoctor,
	}
}

type doctorResult struct {
	Checks []pipeline.Check `json:"checks"`
}

func runDoctor(ctx context.Context, in *invocation) (result, error) {
	return doctorResult{pipeline.Doctor(ctx, pipeline.DoctorOptions{BuildRoot: in.site.Build.Root, Environ: in.environ, Mirrors: in.site.Build.Mirrors, ChangeCache: in.site.Build.ChangeCache})}, nil
}

func (r doctorResult) text(p *printer) {
	for _, c := range r.Checks {
		p.printf("%s %-14s %s", p.mark(c.OK), c.Name, c.Detail)
	}
}
