package meta

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// PromotionVersion is the version of the promotion record that we write.
const PromotionVersion = 1

// Promotion is the record attached to an image that was promoted: who let it
// through, when, from where, and how each rule came out.
type Promotion struct {
	Version int           `json:"version"`
	When    Time          `json:"when"`
	Who     string        `json:"who"`
	Image   digest.Digest `json:"image"` // of the manifest
	From    Place         `json:"from"`
	To      Place         `json:"to"`
	Rules   []RuleResult  `json:"rules"`
	Site    digest.Digest `json:"site,omitempty"` // of the site file whose rules applied; "" for the built-in ones
	Tool    string        `json:"tool,omitempty"` // name and version of the program
}

// Place is a name under which an image is found.
type Place struct {
	Registry   string `json:"registry,omitempty"`
	Repository string `json:"repository"` // NAMESPACE/SYSTEM/UARCH/NAME/VERSION
	Tag        string `json:"tag,omitempty"`
}

// String returns REPOSITORY:TAG.
func (p Place) String() string {
	if p.Tag == "" {
		return p.Repository
	}
	return p.Repository + ":" + p.Tag
}

// RuleResult is how a rule of promotion came out for an image.
type RuleResult struct {
	Rule    string      `json:"rule"`
	Outcome RuleOutcome `json:"outcome"`
	Reason  string      `json:"reason"`
	// Override is why a person let the image through against the rule.
	Override string `json:"override,omitempty"`
}

// RuleOutcome is how a rule came out.
type RuleOutcome string

// The outcomes of a rule.
const (
	RulePassed     RuleOutcome = "passed"
	RuleRefused    RuleOutcome = "refused"
	RuleOverridden RuleOutcome = "overridden" // refused, and let through by a person
)

// ParsePromotion reads a promotion record.
func ParsePromotion(data []byte) (Promotion, error) {
	var p Promotion
	if err := decode(data, maxRecord, "promotion", PromotionVersion, &p); err != nil {
		return Promotion{}, err
	}
	if err := p.validate(); err != nil {
		return Promotion{}, err
	}
	p.When = At(p.When.Time)
	return p, nil
}

// Encode returns the record's text: the same bytes for the same content.
func (p Promotion) Encode() ([]byte, error) {
	p.Version, p.When = PromotionVersion, At(p.When.Time)
	if p.Rules == nil {
		p.Rules = []RuleResult{}
	}
	if err := p.validate(); err != nil {
		return nil, err
	}
	return encode(p)
}

func (p Promotion) validate() error {
	switch {
	case p.When.IsZero():
		return invalid("promotion: when: missing")
	case blank(p.Who):
		return invalid("promotion: who: missing")
	case p.Image.Validate() != nil:
		return invalid("promotion: image: %q is not a digest", p.Image)
	case p.From.Repository == "" || p.To.Repository == "":
		return invalid("promotion: from and to need a repository")
	case p.Site != "" && p.Site.Validate() != nil:
		return invalid("promotion: site: %q is not a digest", p.Site)
	}
	for i, r := range p.Rules {
		known := slices.Contains([]RuleOutcome{RulePassed, RuleRefused, RuleOverridden}, r.Outcome)
		switch {
		case r.Rule == "" || !known:
			return invalid("promotion: rules[%d]: needs a rule and a known outcome", i)
		case (r.Outcome == RuleOverridden) == blank(r.Override):
			return invalid("promotion: rules[%d]: an override needs a reason, and only it has one", i)
		}
	}
	return nil
}

// Annotations returns what the record's artifact carries.
func (p Promotion) Annotations() map[string]string {
	return map[string]string{AnnotationWhen: FormatTime(p.When.Time)}
}
