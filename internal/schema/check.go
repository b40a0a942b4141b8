package schema

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"unicode/utf8"
)

// failure is a keyword of a rule that a value does not fit.
type failure struct {
	rule         *rule
	keyword      string
	at           string      // JSON pointer to the value
	bound        float64     // of a keyword that limits
	alternatives [][]failure // of anyOf and oneOf: why each was none
	message      string      // where the keyword says too little
}

// check returns where a value does not fit, nothing if it does.
func (r *rule) check(v any, at *step) []failure {
	if r.target != nil {
		return r.target.check(v, at)
	}
	var all []failure
	if len(r.Type) > 0 && !slices.ContainsFunc(r.Type, func(t string) bool { return hasType(v, t) }) {
		all = append(all, r.failed("type", at))
	}
	if r.Enum != nil && !slices.ContainsFunc(r.Enum, func(e any) bool { return equal(v, e) }) {
		all = append(all, r.failed("enum", at))
	}
	if r.Const != nil && !equal(v, r.constant) {
		all = append(all, r.failed("const", at))
	}
	switch v := v.(type) {
	case string:
		all = r.checkText(all, v, at)
	case []any:
		all = r.checkList(all, v, at)
	case map[string]any:
		all = r.checkMapping(all, v, at)
	default:
		all = r.checkNumber(all, v, at)
	}
	all = r.checkAlternatives(all, v, at)
	return r.checkConditions(all, v, at)
}

func (r *rule) failed(keyword string, at *step) failure {
	return failure{rule: r, keyword: keyword, at: at.pointer()}
}

func (r *rule) checkText(all []failure, s string, at *step) []failure {
	if r.MinLength != nil {
		all = r.atLeast(all, "minLength", utf8.RuneCountInString(s), r.MinLength, at)
	}
	if r.Pattern != nil && !r.Pattern.MatchString(s) {
		all = append(all, r.failed("pattern", at))
	}
	return all
}

func (r *rule) checkNumber(all []failure, v any, at *step) []failure {
	n := number(v)
	if n == nil {
		return all
	}
	for _, limit := range []struct {
		keyword string
		bound   *float64
		wrong   int
	}{{"minimum", r.Minimum, -1}, {"maximum", r.Maximum, 1}} {
		if limit.bound != nil && n.Cmp(new(big.Rat).SetFloat64(*limit.bound)) == limit.wrong {
			f := r.failed(limit.keyword, at)
			f.bound = *limit.bound
			all = append(all, f)
		}
	}
	return all
}

func (r *rule) checkList(all []failure, items []any, at *step) []failure {
	all = r.atLeast(all, "minItems", len(items), r.MinItems, at)
	all = r.atMost(all, "maxItems", len(items), r.MaxItems, at)
	if r.Items == nil {
		return all
	}
	next := step{above: at, list: true}
	for i, item := range items {
		next.item = i
		all = append(all, r.Items.check(item, &next)...)
	}
	return all
}

func (r *rule) checkMapping(all []failure, m map[string]any, at *step) []failure {
	all = r.atLeast(all, "minProperties", len(m), r.MinProperties, at)
	all = r.atMost(all, "maxProperties", len(m), r.MaxProperties, at)
	if slices.ContainsFunc(r.Required, func(key string) bool { _, ok := m[key]; return !ok }) {
		all = append(all, r.failed("required", at))
	}
	unknown := false
	next := step{above: at}
	for key, v := range m {
		next.key = key
		if r.PropertyNames != nil {
			all = append(all, r.PropertyNames.check(key, &next)...)
		}
		known := false
		if x := r.Properties[key]; x != nil {
			known = true
			all = append(all, x.check(v, &next)...)
		}
		for p, x := range r.PatternProperties {
			if p.MatchString(key) {
				known = true
				all = append(all, x.check(v, &next)...)
			}
		}
		switch {
		case known || r.AdditionalProperties == nil:
		case r.AdditionalProperties.rule == nil:
			unknown = true
		default:
			all = append(all, r.AdditionalProperties.rule.check(v, &next)...)
		}
	}
	if unknown {
		all = append(all, r.failed("additionalProperties", at))
	}
	return all
}

// checkAlternatives checks what a value has to fit one of.
func (r *rule) checkAlternatives(all []failure, v any, at *step) []failure {
	if r.AnyOf != nil {
		if fit, others := choose(r.AnyOf, v, at); len(fit) == 0 {
			f := r.failed("anyOf", at)
			f.alternatives = others
			all = append(all, f)
		}
	}
	if r.OneOf != nil {
		if fit, others := choose(r.OneOf, v, at); len(fit) != 1 {
			f := r.failed("oneOf", at)
			if len(fit) == 0 {
				f.alternatives = others
			} else {
				f.message = fmt.Sprintf("alternatives %d and %d both fit", fit[0]+1, fit[1]+1)
			}
			all = append(all, f)
		}
	}
	return all
}

// choose returns which rules a value fits, and why it does not fit the others.
func choose(rules []*rule, v any, at *step) (fit []int, others [][]failure) {
	for i, x := range rules {
		if failures := x.check(v, at); len(failures) > 0 {
			others = append(others, failures)
		} else {
			fit = append(fit, i)
		}
	}
	return fit, others
}

func (r *rule) checkConditions(all []failure, v any, at *step) []failure {
	if r.Not != nil && len(r.Not.check(v, at)) == 0 {
		f := r.failed("not", at)
		f.message = "it is what it must not be"
		all = append(all, f)
	}
	if r.If == nil {
		return all
	}
	then := r.Else
	if len(r.If.check(v, at)) == 0 {
		then = r.Then
	}
	if then == nil {
		return all
	}
	return append(all, then.check(v, at)...)
}

func (r *rule) atLeast(all []failure, keyword string, n int, bound *int, at *step) []failure {
	if bound == nil || n >= *bound {
		return all
	}
	f := r.failed(keyword, at)
	f.bound = float64(*bound)
	return append(all, f)
}

func (r *rule) atMost(all []failure, keyword string, n int, bound *int, at *step) []failure {
	if bound == nil || n <= *bound {
		return all
	}
	f := r.failed(keyword, at)
	f.bound = float64(*bound)
	return append(all, f)
}

// hasType tells whether a value has a type of JSON schema.
func hasType(v any, name string) bool {
	switch v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	n := number(v)
	return n != nil && (name == "number" || name == "integer" && n.IsInt())
}

// number returns the value of a number exactly, nil for anything else.
func number(v any) *big.Rat {
	switch v := v.(type) {
	case int:
		return new(big.Rat).SetInt64(int64(v))
	case int64:
		return new(big.Rat).SetInt64(v)
	case float64:
		return new(big.Rat).SetFloat64(v)
	case json.Number:
		if n, ok := new(big.Rat).SetString(v.String()); ok {
			return n
		}
	}
	return nil
}

// equal tells whether a value is one that a schema names.
func equal(v, named any) bool {
	switch v := v.(type) {
	case []any:
		list, ok := named.([]any)
		return ok && slices.EqualFunc(v, list, equal)
	case map[string]any:
		m, ok := named.(map[string]any)
		if !ok || len(m) != len(v) {
			return false
		}
		for key, x := range v {
			if y, ok := m[key]; !ok || !equal(x, y) {
				return false
			}
		}
		return true
	case nil, bool, string:
		switch named.(type) {
		case nil, bool, string:
			return v == named
		}
		return false
	}
	n, m := number(v), number(named)
	return n != nil && m != nil && n.Cmp(m) == 0
}
