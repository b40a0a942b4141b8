package pipeline

import (
	"context"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/promote"
	"uenv-ci.dev/internal/registry"
)

// PromoteOptions say by which rules and in whose name an image is promoted.
type PromoteOptions struct {
	Rules     promote.Rules
	Overrides map[string]string // rule → reason
	Who       string
	Tool      string // name and version of this program
	Explain   bool   // decide only
	Events    event.Sink
}

// Promoted is what became of a promotion.
type Promoted struct {
	To     Found          `json:"-"`
	Label  label.Label    `json:"label"`
	Result promote.Result `json:"result"`
}

// Promote gives an image another name if the rules allow it. The decision is in
// the result also if the error says that they do not.
func Promote(ctx context.Context, from Found, reg *registry.Registry, to label.Label, o PromoteOptions) (Promoted, error) {
	done := Promoted{Label: to}
	target, err := reg.Repository(to.Repository())
	if err != nil {
		return done, err
	}
	done.To = Found{Label: to, Repo: target, Descriptor: from.Descriptor}
	request := promote.Request{
		Image: from.Descriptor, From: from.Label, Source: from.Repo, To: to, Target: target,
		Rules: o.Rules, Overrides: o.Overrides, Who: o.Who, Tool: o.Tool, Events: o.Events,
	}
	if o.Explain {
		if done.Result.Decision, err = promote.Decide(ctx, request); err != nil {
			return done, err
		}
		return done, done.Result.Decision.Refusal(from.Label)
	}
	done.Result, err = promote.Apply(ctx, request)
	return done, err
}
