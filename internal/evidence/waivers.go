package evidence

import (
	"fmt"
	"os"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/yamlpos"
)

// LoadWaivers reads a file of known failures:
//
//	waivers:
//	  - test: "Stream*"      # * and ? as in a shell
//	    system: daint        # pattern; left out for every system
//	    reason: "issue 42: wrong reference"
//	    until: 2027-01-31    # the last day on which it holds; required
func LoadWaivers(path string) ([]meta.Waiver, error) {
	f, err := os.Open(path) // a pipe will do
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := bounded.ReadAll(f, yamlpos.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	root, err := yamlpos.Parse(path, data)
	if err != nil {
		return nil, err
	}
	r := &waiverReader{}
	list := root.Get("waivers")
	if root.Kind != yamlpos.Mapping || list == nil || list.Kind != yamlpos.Sequence || len(root.Pairs) != 1 {
		r.fail(root, "a mapping with the one key 'waivers', a list, is expected")
		return nil, r.problems
	}
	waivers := []meta.Waiver{}
	for _, item := range list.Items {
		waivers = append(waivers, r.waiver(item))
	}
	return waivers, r.problems.Err()
}

type waiverReader struct{ problems fault.Problems }

func (r *waiverReader) fail(n *yamlpos.Node, format string, args ...any) {
	r.problems = append(r.problems, n.Problem(fmt.Sprintf(format, args...), ""))
}

func (r *waiverReader) waiver(n *yamlpos.Node) meta.Waiver {
	var w meta.Waiver
	var until string
	fields := map[string]*string{"test": &w.Test, "system": &w.System, "reason": &w.Reason, "until": &until}
	for _, p := range n.Pairs {
		field := fields[p.Key.Raw]
		switch {
		case field == nil:
			r.fail(p.Key, "unknown key %q (test, system, reason, until)", p.Key.Raw)
		case p.Value.Kind != yamlpos.Scalar:
			r.fail(p.Value, "%s: a text is expected, not a %s", p.Key.Raw, p.Value.Kind)
		default:
			*field = p.Value.Raw
		}
	}
	for _, required := range []string{"test", "reason", "until"} {
		if *fields[required] == "" {
			r.fail(n, "a waiver needs %q", required)
		}
	}
	if until != "" {
		date, err := meta.ParseDate(until)
		if err != nil {
			r.fail(n.Get("until"), "until: %v", err)
		}
		w.Until = &date
	}
	return w
}
