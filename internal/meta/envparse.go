package meta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"uenv-ci.dev/internal/pathcheck"
)

const maxEnv = 16 << 20 // bytes; real files have a few kilobytes

// ParseEnv reads meta/env.json. It refuses whatever makes the uenv client (9.x
// or 10.x) reject the file or abort, and names the member at fault.
func ParseEnv(data []byte) (Env, error) {
	root, err := decodeObject(data, maxEnv)
	if err != nil {
		return Env{}, invalid("env.json: %w", err)
	}
	p := envParser{}
	e := p.env(root)
	if p.err != nil {
		return Env{}, invalid("env.json: %w", p.err)
	}
	return e, nil
}

func decodeObject(data []byte, limit int) (map[string]any, error) {
	switch data = bytes.TrimPrefix(data, []byte("\ufeff")); {
	case len(data) > limit:
		return nil, fmt.Errorf("larger than %d bytes", limit)
	case !utf8.Valid(data):
		return nil, fmt.Errorf("not UTF-8 text")
	}
	var root any
	if err := json.Unmarshal(data, &root); err != nil {
		return nil, err
	}
	object, ok := root.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("not a JSON object")
	}
	return object, nil
}

// envParser walks the decoded file and keeps the first error. A member's place
// is written as in jq: views.default.env.
type envParser struct{ err error }

func (p *envParser) fail(place, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: %s", place, fmt.Sprintf(format, args...))
	}
}

func (p *envParser) env(root map[string]any) Env {
	e := Env{
		Name:        p.text(root, "", "name", "unnamed", false),
		Description: p.text(root, "", "description", "", true),
		DefaultView: p.text(root, "", "default-view", "", true),
		Mount:       p.text(root, "", "mount", "", false),
		Views:       map[string]View{},
	}
	if e.Mount == "" {
		p.fail("mount", "missing")
	}
	if len(e.Mount) > 1 {
		e.Mount = strings.TrimSuffix(e.Mount, "/")
	}
	if err := pathcheck.MountPoint(e.Mount); err != nil {
		p.fail("mount", "%q: %v", e.Mount, err)
	}
	if modules, ok := root["modules"].(map[string]any); ok {
		e.Modules = &Modules{Root: p.text(modules, "modules.", "root", "", true)}
	}
	views, _ := root["views"].(map[string]any) // anything else means no views
	for _, name := range slices.Sorted(maps.Keys(views)) {
		e.Views[name] = p.view("views."+name, views[name])
	}
	return e
}

func (p *envParser) view(place string, value any) View {
	view := p.object(place, value)
	v := View{
		Description: p.text(view, place+".", "description", "", false),
		Root:        p.text(view, place+".", "root", "", true),
		Activate:    p.text(view, place+".", "activate", "", true),
		Type:        p.text(view, place+".", "type", "", true),
	}
	if raw, ok := view["env"]; ok {
		env := p.object(place+".env", raw)
		v.Env = &ViewEnv{Version: 1, Type: p.text(env, place+".env.", "type", "", true)}
		if n, ok := env["version"].(float64); ok {
			v.Env.Version = int(n)
		}
		v.Env.Values = p.variables(place+".env.values", env["values"])
	}
	if raw, ok := view["recipe_variables"]; ok && raw != nil {
		recipe := p.variables(place+".recipe_variables", raw)
		v.Recipe = &recipe
	}
	return v
}

func (p *envParser) variables(place string, value any) Variables {
	values := p.object(place, value)
	v := Variables{List: map[string][]ListOp{}, Scalar: map[string]*string{}}
	list := p.object(place+".list", values["list"])
	for _, name := range slices.Sorted(maps.Keys(list)) {
		v.List[name] = p.listOps(place+".list."+name, list[name])
	}
	scalar := p.object(place+".scalar", values["scalar"])
	for _, name := range slices.Sorted(maps.Keys(scalar)) {
		switch x := scalar[name].(type) {
		case nil:
			v.Scalar[name] = nil
		case string:
			v.Scalar[name] = &x
		default:
			p.fail(place+".scalar."+name, "must be a string or null, is %s", kind(x))
		}
	}
	return v
}

// listOps reads the operations of one variable, skipping as the client does
// those without an operation or a value.
func (p *envParser) listOps(place string, value any) []ListOp {
	items, ok := value.([]any)
	if !ok {
		p.fail(place, "must be an array, is %s", kind(value))
	}
	ops := []ListOp{}
	for i, item := range items {
		place := fmt.Sprintf("%s[%d]", place, i)
		entry := p.object(place, item)
		rawOp, hasOp := entry["op"]
		rawValue, hasValue := entry["value"]
		if !hasOp || !hasValue {
			continue
		}
		op, ok := rawOp.(string)
		if !ok {
			p.fail(place+".op", "must be a string, is %s", kind(rawOp))
		}
		ops = append(ops, ListOp{Op: op, Value: p.strings(place+".value", rawValue)})
	}
	return ops
}

func (p *envParser) strings(place string, value any) []string {
	items, ok := value.([]any)
	if !ok {
		p.fail(place, "must be an array of strings, is %s", kind(value))
	}
	texts := make([]string, 0, len(items))
	for _, item := range items {
		text, ok := item.(string)
		if !ok {
			p.fail(place, "must be an array of strings, holds %s", kind(item))
		}
		texts = append(texts, text)
	}
	return texts
}

func (p *envParser) object(place string, value any) map[string]any {
	object, ok := value.(map[string]any)
	if !ok {
		p.fail(place, "must be an object, is %s", kind(value))
	}
	return object
}

// text returns a string member, or the default if it is not there (or null,
// where the client allows that).
func (p *envParser) text(from map[string]any, place, name, or string, null bool) string {
	value, there := from[name]
	if !there || value == nil && null {
		return or
	}
	text, ok := value.(string)
	if !ok {
		p.fail(place+name, "must be a string, is %s", kind(value))
	}
	return text
}

func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null or missing"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	}
	return "an object"
}
