package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
)

// rule is a schema or a part of one: the keywords of draft-07 that our schemas use.
// Others are refused when a schema is compiled.
type rule struct {
	Ref string `json:"$ref"` // then nothing else counts

	Type  types           `json:"type"`
	Enum  []any           `json:"enum"`
	Const json.RawMessage `json:"const"`

	Minimum   *float64 `json:"minimum"`
	Maximum   *float64 `json:"maximum"`
	MinLength *int     `json:"minLength"` // in characters
	Pattern   *pattern `json:"pattern"`

	Items    *rule `json:"items"`
	MinItems *int  `json:"minItems"`
	MaxItems *int  `json:"maxItems"`

	Required             []string          `json:"required"`
	Properties           map[string]*rule  `json:"properties"`
	PatternProperties    map[pattern]*rule `json:"patternProperties"`
	AdditionalProperties *additional       `json:"additionalProperties"`
	PropertyNames        *rule             `json:"propertyNames"`
	MinProperties        *int              `json:"minProperties"`
	MaxProperties        *int              `json:"maxProperties"`

	AnyOf []*rule `json:"anyOf"`
	OneOf []*rule `json:"oneOf"`
	Not   *rule   `json:"not"`
	If    *rule   `json:"if"`
	Then  *rule   `json:"then"`
	Else  *rule   `json:"else"`

	Definitions map[string]*rule `json:"definitions"`

	annotations

	target   *rule // of Ref
	constant any   // of Const
}

// annotations say nothing of a document; those of ours are looked up by reporter.
type annotations struct {
	Schema      string            `json:"$schema"`
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Default     any               `json:"default"`
	Expected    string            `json:"x-expected"`
	Hint        string            `json:"x-hint"`
	Elsewhere   map[string]string `json:"x-elsewhere"`
}

// types is what a value may be.
type types []string

// UnmarshalJSON reads one type or a list.
func (t *types) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = types{one}
	} else if err := json.Unmarshal(data, (*[]string)(t)); err != nil {
		return err
	}
	for _, name := range *t {
		if typeNames[name] == "" {
			return fmt.Errorf("there is no type %q", name)
		}
	}
	return nil
}

// pattern is a regular expression.
type pattern struct{ *regexp.Regexp }

// UnmarshalText compiles it.
func (p *pattern) UnmarshalText(text []byte) (err error) {
	p.Regexp, err = regexp.Compile(string(text))
	return err
}

// additional is what the keys may have that no keyword names: anything that fits the
// rule, or nothing without one.
type additional struct{ rule *rule }

// UnmarshalJSON reads a schema or a truth value.
func (a *additional) UnmarshalJSON(data []byte) error {
	var allowed bool
	if json.Unmarshal(data, &allowed) != nil {
		return decode(data, &a.rule)
	}
	if allowed {
		a.rule = &rule{}
	}
	return nil
}

// decode reads JSON that has no other keys than are known.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the schema")
	}
	return nil
}

// parse reads a schema.
func parse(data []byte) (*rule, error) {
	root := &rule{}
	if err := decode(data, root); err != nil {
		return nil, err
	}
	return root, root.prepare("", root.Definitions)
}

// prepare completes a rule and those within it. Errors say where it is.
func (r *rule) prepare(at string, definitions map[string]*rule) error {
	if r.Const != nil {
		if err := json.Unmarshal(r.Const, &r.constant); err != nil {
			return err
		}
	}
	if err := r.resolve(definitions); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	for _, p := range r.parts() {
		if p.rule == nil {
			return fmt.Errorf("%s%s is no schema", at, p.at)
		}
		if err := p.rule.prepare(at+p.at, definitions); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds what a reference stands for: one of the definitions.
func (r *rule) resolve(definitions map[string]*rule) error {
	next := r
	for range len(definitions) + 1 {
		if next.Ref == "" {
			if next != r {
				r.target = next
			}
			return nil
		}
		name, ok := definitionName(next.Ref)
		if next = definitions[name]; !ok || next == nil {
			return fmt.Errorf("there is no %q", r.Ref)
		}
	}
	return fmt.Errorf("%q leads to itself", r.Ref)
}

// definitionName returns the name in a reference to a definition.
func definitionName(ref string) (string, bool) {
	name, ok := strings.CutPrefix(ref, "#/definitions/")
	text, err := url.PathUnescape(name)
	return unescape.Replace(text), ok && err == nil
}

// part is a rule within another, and where it is.
type part struct {
	at   string
	rule *rule
}

// parts lists the rules within a rule.
func (r *rule) parts() []part {
	var all []part
	for keyword, x := range map[string]*rule{
		"items": r.Items, "propertyNames": r.PropertyNames, "not": r.Not, "if": r.If, "then": r.Then, "else": r.Else,
	} {
		if x != nil {
			all = append(all, part{"/" + keyword, x})
		}
	}
	if r.AdditionalProperties != nil && r.AdditionalProperties.rule != nil {
		all = append(all, part{"/additionalProperties", r.AdditionalProperties.rule})
	}
	for keyword, rules := range map[string][]*rule{"anyOf": r.AnyOf, "oneOf": r.OneOf} {
		for i, x := range rules {
			all = append(all, part{fmt.Sprintf("/%s/%d", keyword, i), x})
		}
	}
	for keyword, rules := range map[string]map[string]*rule{"definitions": r.Definitions, "properties": r.Properties} {
		for name, x := range rules {
			all = append(all, part{"/" + keyword + "/" + name, x})
		}
	}
	for p, x := range r.PatternProperties {
		all = append(all, part{"/patternProperties/" + p.String(), x})
	}
	return all
}
