package promote

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
)

// Decision is the outcome of every rule for an image.
type Decision struct {
	Image    digest.Digest     `json:"image"`
	From     meta.Place        `json:"from"`
	To       meta.Place        `json:"to"`
	Allowed  bool              `json:"allowed"`
	Rules    []meta.RuleResult `json:"rules"`
	Evidence []Evidence        `json:"evidence"` // all test results of the image, newest first

	attached *union            // to the image, at both places
	occupant digest.Digest     // what the tag is now; "" if it is free
	hints    map[string]string // by rule: what to do about it
}

// Evidence is a test result as the rules see it.
type Evidence struct {
	Digest digest.Digest `json:"digest"` // of the attached manifest
	System string        `json:"system,omitempty"`
	Suite  string        `json:"suite,omitempty"`
	When   string        `json:"when,omitempty"`
	State  meta.State    `json:"verdict"` // decided again, by the rules' waivers
	Reason string        `json:"reason"`
	Tests  meta.Counts   `json:"tests"`
}

// Decide evaluates the rules, and writes nothing. An error means that they could not be
// evaluated.
func Decide(ctx context.Context, r Request) (Decision, error) {
	d := Decision{
		Image: r.Image.Digest, From: placeOf(r.Source, r.From), To: placeOf(r.Target, r.To), hints: map[string]string{}, attached: r.attached(),
		Rules: []meta.RuleResult{}, Evidence: []Evidence{},
	}
	if err := r.check(); err != nil {
		return d, err
	}
	// Two rules need nothing of what is attached, and need not wait for it.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	image, free := early(ctx, r.image), early(ctx, r.free)
	d.attached.ahead(ctx, r.Image)
	if r.copies {
		defer d.attached.readAhead(ctx, r.Source, r.Image)()
	}
	for _, rule := range []struct {
		name  string
		check check
	}{
		{RuleImage, image}, {RuleMetadata, r.metadata}, {RuleUArch, r.uarch}, {RuleSource, r.source},
		{RuleDeprecation, r.deprecation}, {RuleTests, r.tests}, {RuleTag, free},
	} {
		f, err := rule.check(ctx, &d)
		if err != nil {
			return d, fmt.Errorf("promote %s: check rule %s: %w", r.From, rule.name, err)
		}
		d.Rules = append(d.Rules, r.judge(rule.name, f))
		d.hints[rule.name] = f.hint
	}
	d.Allowed = !slices.ContainsFunc(d.Rules, func(f meta.RuleResult) bool { return f.Outcome == meta.RuleRefused })
	return d, nil
}

// check finds out how a rule comes out.
type check func(context.Context, *Decision) (finding, error)

// early starts a check concurrently and returns a check that waits for it.
func early(ctx context.Context, begin check) check {
	var d Decision
	var found finding
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		found, err = begin(ctx, &d)
	}()
	return func(_ context.Context, whole *Decision) (finding, error) {
		<-done
		whole.occupant = cmp.Or(whole.occupant, d.occupant)
		return found, err
	}
}

// finding is what a rule's check found.
type finding struct {
	ok     bool
	reason string
	hint   string
}

func pass(format string, args ...any) (finding, error) {
	return finding{ok: true, reason: fmt.Sprintf(format, args...)}, nil
}

func refuse(format string, args ...any) (finding, error) {
	return finding{reason: fmt.Sprintf(format, args...)}, nil
}

// judge applies the overrides to a finding.
func (r Request) judge(rule string, f finding) meta.RuleResult {
	out := meta.RuleResult{Rule: rule, Outcome: meta.RulePassed, Reason: f.reason}
	if f.ok {
		return out
	}
	out.Outcome = meta.RuleRefused
	if reason, ok := r.Overrides[rule]; ok {
		out.Outcome, out.Override = meta.RuleOverridden, reason
	}
	return out
}

// check refuses requests that make no sense.
func (r Request) check() error {
	for _, rule := range slices.Sorted(maps.Keys(r.Overrides)) {
		switch {
		case rule == RuleImage:
			return fault.New(fault.Usage, "rule %s cannot be overridden", rule)
		case !slices.Contains(overridable, rule):
			return fault.WithHint(fault.New(fault.Usage, "there is no rule %q", rule), "the rules are: %s", strings.Join(overridable, ", "))
		case strings.TrimSpace(r.Overrides[rule]) == "":
			return fault.New(fault.Usage, "overriding rule %s needs a reason", rule)
		}
	}
	missing := r.To.Missing()
	if r.To.Namespace == "" {
		missing = append(missing, "namespace")
	}
	switch {
	case len(missing) > 0:
		return fault.New(fault.Usage, "promote: the destination %s has no %s", r.To, strings.Join(missing, ", no "))
	case r.To.Repository() != r.Target.Name():
		return fault.New(fault.Usage, "promote: %s does not belong in %s", r.To, r.Target.Name())
	case strings.TrimSpace(r.Who) == "":
		return fault.New(fault.Usage, "promote: it is not known who promotes")
	case r.Source.String() == r.Target.String() && r.From.Tag == r.To.Tag:
		return fault.New(fault.Usage, "promote: source and destination are the same")
	}
	return nil
}

// Refusal returns the error for a decision that does not let the image through,
// nil for one that does.
func (d Decision) Refusal(from label.Label) error {
	var refused []meta.RuleResult
	for _, rule := range d.Rules {
		if rule.Outcome == meta.RuleRefused {
			refused = append(refused, rule)
		}
	}
	if len(refused) == 0 {
		return nil
	}
	text := refused[0].Reason
	if more := refused[1:]; len(more) > 0 {
		names := make([]string, len(more))
		for i, rule := range more {
			names[i] = rule.Rule
		}
		text += fmt.Sprintf(" (refused by %s too)", strings.Join(names, ", "))
	}
	err := fault.New(fault.Refused, "promote %s: %s", from, text)
	if hint := d.hints[refused[0].Rule]; hint != "" {
		err = fault.WithHint(err, "%s", hint)
	}
	return err
}
