package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/promote"
	"uenv-ci.dev/internal/registry"
)

func promoteCommand() *command {
	return &command{
		name: "promote", group: "Staff", writes: true, usage: "give a tested image the name that users see",
		args: "SRC DST…", minArgs: 2, maxArgs: -1,
		details: `The image keeps its digest and everything attached to it. It must have passed its
tests on the destination system (or failed only tests that the site waives), have
metadata and not be deprecated, and the name must be free. Parts missing from DST are
taken from SRC; its default namespace is 'deploy'. Rules and waivers come only from a
site file named by --site.
Rules: ` + strings.Join(append([]string{promote.RuleImage}, promote.Overridable()...), ", ") + ".",
		examples: `uenv-ci promote prgenv-gnu/25.11:2078663062@daint%gh200 :v1
# see the outcome of each rule, change nothing
uenv-ci promote --explain prgenv-gnu/25.11:2078663062@daint%gh200 :v1
# override a rule, on the record
uenv-ci promote hello/1.0:42@daint%gh200 :v1@santis --override tests --reason "same nodes as daint"`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "explain", Usage: "show the outcome of each rule and change nothing; exits with 8 if it would be refused"},
			&cli.StringSliceFlag{Name: "override", Usage: "promote despite `RULE`; needs --reason"},
			&cli.StringFlag{Name: "reason", Usage: "why a rule is overridden, a `TEXT` for the record"},
			&cli.StringFlag{Name: "to", Usage: "promote into another registry `R`"},
			whoFlag(),
		},
		run: runPromote,
	}
}

type promoteResult struct {
	Promotions []pipeline.Promoted `json:"promotions"`
	explain    bool
}

func runPromote(ctx context.Context, in *invocation) (result, error) {
	collectLater(in.getenv)
	o, err := in.promoteOptions()
	if err != nil {
		return nil, err
	}
	from, err := in.locate(ctx, in.build())
	if err != nil {
		return nil, err
	}
	target, err := in.targetRegistry(from.Label)
	if err != nil {
		return nil, err
	}
	names, err := in.destinations(from.Label)
	if err != nil {
		return nil, err
	}
	res := promoteResult{explain: o.Explain}
	var notes map[string]func()
	if !o.Explain {
		notes = in.indexNotes(ctx, target.Repository, names...)
	}
	var refused error
	for _, to := range names {
		done, err := pipeline.Promote(ctx, from, target, to, o)
		if err != nil && fault.KindOf(err) != fault.Refused {
			return res, err
		}
		res.Promotions = append(res.Promotions, done)
		if err != nil && refused == nil {
			refused = err
		}
		if changed := !done.Result.Already || done.Result.Copy.Manifests > 0; err == nil && changed && !o.Explain {
			notes[to.Namespace]()
		}
	}
	return res, refused
}

// destinations reads all names before anything is done under one of them.
func (in *invocation) destinations(from label.Label) ([]label.Label, error) {
	var names []label.Label
	for i := 1; i < len(in.args); i++ {
		to, err := in.label(i, in.deploy())
		if err != nil {
			return nil, err
		}
		if to, err = in.complete(i, to, from); err != nil {
			return nil, err
		}
		names = append(names, to)
	}
	return names, nil
}

func (in *invocation) promoteOptions() (pipeline.PromoteOptions, error) {
	rules, err := promote.FromSite(in.site)
	if err != nil {
		return pipeline.PromoteOptions{}, err
	}
	overrides := map[string]string{}
	for _, rule := range commaList(in.StringSlice("override")) {
		overrides[rule] = in.String("reason")
	}
	if len(overrides) > 0 && in.String("reason") == "" {
		return pipeline.PromoteOptions{}, usageError([]string{"promote"}, "--override needs --reason")
	}
	return pipeline.PromoteOptions{
		Rules: rules, Overrides: overrides, Who: in.who(), Tool: programName + " " + buildVersion().Version,
		Explain: in.Bool("explain"), Events: in.events,
	}, nil
}

// targetRegistry is the registry to promote an image into.
func (in *invocation) targetRegistry(from label.Label) (*registry.Registry, error) {
	if to := in.String("to"); to != "" {
		return in.openRegistryAt(to, in.credentials(), false)
	}
	return in.registryFor(from)
}

func (r promoteResult) text(p *printer) {
	for _, done := range r.Promotions {
		d := done.Result.Decision
		if r.explain || !d.Allowed {
			r.explainText(p, done)
			continue
		}
		how := fmt.Sprintf("%s moved", event.FormatBytes(done.Result.Copy.Bytes))
		if done.Result.Already {
			how = "was promoted already"
		}
		p.printf("%s  %s  %s", done.Label, shortDigest(d.Image.String()), how)
	}
}

func (r promoteResult) explainText(p *printer, done pipeline.Promoted) {
	d := done.Result.Decision
	answer := p.green("may be promoted")
	if !d.Allowed {
		answer = p.red("may not be promoted")
	}
	p.printf("%s %s", p.bold(done.Label.String()), answer)
	for _, rule := range d.Rules {
		text := fmt.Sprintf("  %s %-12s %s", p.mark(rule.Outcome == meta.RulePassed), rule.Rule, rule.Reason)
		if rule.Outcome == meta.RuleOverridden {
			text += p.yellow(" (overridden: " + rule.Override + ")")
		}
		p.printf("%s", text)
	}
}
