package promote

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/site"
)

// Rules are a site's. The zero value has the built-in rules alone.
type Rules struct {
	From    []string      // namespaces that images may come from; none is "build"
	Require []Requirement // beyond one test that ran and none that failed
	Waivers []Waiver      // the only ones that count: those in results are not the site's
	Site    digest.Digest // of the file that the rules are from; "" without one
}

// Requirement is what test results must show where it applies.
type Requirement struct {
	System, UArch string // of the destination; "" is every one
	MinTests      int    // that ran; 0 is one
	Suites        []string
	MaxAge        time.Duration // 0 is any
}

// Waiver is a known failure of some images.
type Waiver struct {
	meta.Waiver
	Image label.Label // pattern of the destination; empty parts are any
}

// The names of the rules, as --override takes them, in the order of a Decision.
const (
	RuleImage       = "image"       // it is an image that clients can use
	RuleMetadata    = "metadata"    // exactly one uenv/meta, with a good env.json
	RuleUArch       = "uarch"       // the name says the microarchitecture it was built for
	RuleSource      = "source"      // it comes from a namespace that images may come from
	RuleDeprecation = "deprecation" // nobody has said that users should leave it
	RuleTests       = "tests"       // its tests passed on the system that it goes to
	RuleTag         = "tag"         // the name is free
)

var overridable = []string{RuleMetadata, RuleUArch, RuleSource, RuleDeprecation, RuleTests, RuleTag}

// Overridable returns the names of the rules that a person may override.
func Overridable() []string { return slices.Clone(overridable) }

// FromSite returns the rules of a site file. Only a file that its user named has
// any.
func FromSite(s *site.Site) (Rules, error) {
	if s == nil || s.Rules == nil {
		return Rules{}, nil
	}
	r := Rules{From: s.Rules.From, Site: digest.Digest(s.Digest)}
	for _, q := range s.Rules.Require {
		r.Require = append(r.Require, Requirement{
			System: q.System, UArch: q.UArch, MinTests: q.MinTests, Suites: q.Suites, MaxAge: time.Duration(q.MaxAgeDays) * 24 * time.Hour,
		})
	}
	for _, w := range s.Rules.Waivers {
		waiver, err := fromSite(w)
		if err != nil {
			return Rules{}, fmt.Errorf("%s: waiver of %s: %w", s.File, w.Test, err)
		}
		r.Waivers = append(r.Waivers, waiver)
	}
	return r, nil
}

func fromSite(w site.Waiver) (Waiver, error) {
	out := Waiver{Waiver: meta.Waiver{Test: w.Test, Reason: w.Reason}}
	until, err := meta.ParseDate(w.Until)
	if err != nil {
		return out, fault.Wrap(fault.Invalid, err, "until")
	}
	out.Until = &until
	if w.Uenv != "" {
		out.Image, err = label.Parse(w.Uenv)
	}
	return out, err
}

// For returns the waivers that hold for images of a label.
func (r Rules) For(l label.Label) []meta.Waiver {
	var held []meta.Waiver
	for _, w := range r.Waivers {
		if l.Match(w.Image, false) {
			held = append(held, w.Waiver)
		}
	}
	return held
}

func (r Rules) from() []string {
	if len(r.From) == 0 {
		return []string{"build"}
	}
	return r.From
}

// requirements returns what applies to a destination; at least one.
func (r Rules) requirements(to label.Label) []Requirement {
	held := []Requirement{{}}
	for _, q := range r.Require {
		if (q.System == "" || q.System == to.System) && (q.UArch == "" || q.UArch == to.UArch) {
			held = append(held, q)
		}
	}
	return held
}
