package promote

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
)

func (r Request) image(ctx context.Context, _ *Decision) (finding, error) {
	m, _, err := r.Source.Manifest(ctx, r.Image)
	if fault.KindOf(err) == fault.Invalid {
		return refuse("it is not a uenv image: %v", err)
	}
	if err != nil {
		return finding{}, err
	}
	layer, err := meta.ImageLayer(m)
	if err != nil {
		return refuse("it is not a uenv image: %v", err)
	}
	there, err := r.Source.Exists(ctx, layer)
	if err != nil {
		return finding{}, err
	}
	if !there {
		return refuse("its squashfs %s is gone from the registry", layer.Digest)
	}
	return pass("one layer, %s, of %d bytes", meta.ImageTitle, layer.Size)
}

func (r Request) metadata(ctx context.Context, d *Decision) (finding, error) {
	attached, err := d.attached.in(r.Source).Referrers(ctx, r.Image, meta.TypeMeta)
	if err != nil {
		return finding{}, err
	}
	if len(attached) != 1 {
		f, _ := refuse("it has %d %s attached, not one", len(attached), meta.TypeMeta)
		f.hint = "publish the file under another tag, with 'uenv-ci push'"
		return f, nil
	}
	data, err := r.Source.Document(ctx, attached[0], meta.EnvFile)
	var env meta.Env
	if err == nil {
		env, err = meta.ParseEnv(data)
	}
	switch kind := fault.KindOf(err); {
	case err == nil:
		return pass("mounts at %s, views: %s", env.Mount, cmp.Or(strings.Join(env.ViewNames(), ", "), "none"))
	case kind == fault.Invalid || kind == fault.NotFound:
		return refuse("its metadata cannot be used: %v", err)
	}
	return finding{}, err
}

func (r Request) uarch(context.Context, *Decision) (finding, error) {
	if r.From.UArch != r.To.UArch {
		return refuse("it was built for %s, not for %s", cmp.Or(r.From.UArch, "nothing known"), r.To.UArch)
	}
	return pass("%s", r.To.UArch)
}

func (r Request) source(context.Context, *Decision) (finding, error) {
	if from := r.Rules.from(); !slices.Contains(from, r.From.Namespace) {
		return refuse("it comes from namespace %q, not from %s", r.From.Namespace, strings.Join(from, " or "))
	}
	return pass("from namespace %s", r.From.Namespace)
}

func (r Request) deprecation(ctx context.Context, d *Decision) (finding, error) {
	records, problems, err := meta.Deprecations(ctx, d.attached, r.Image)
	if err != nil {
		return finding{}, err
	}
	if len(records) > 0 && records[0].State == meta.Active {
		f, _ := refuse("it is deprecated: %s", records[0].Reason)
		if by := records[0].Replacement; by != "" {
			f.hint = "use " + by
		}
		return f, nil
	}
	if len(problems) > 0 {
		return refuse("whether it is deprecated cannot be read: %s", problems[0])
	}
	return pass("not deprecated")
}

// tests reads all results and decides again from their cases. Annotations, the
// state that a document claims, and waivers that it brings along decide nothing.
func (r Request) tests(ctx context.Context, d *Decision) (finding, error) {
	results, err := meta.Results(ctx, d.attached, r.Image)
	if err != nil {
		return finding{}, err
	}
	decided := make([]meta.Decision, len(results))
	for i, result := range results {
		decided[i] = r.decide(result)
		d.Evidence = append(d.Evidence, evidenceOf(result, decided[i]))
	}
	said := ""
	for _, q := range r.Rules.requirements(r.To) {
		suites := q.Suites
		if len(suites) == 0 {
			suites = []string{""}
		}
		for _, suite := range suites {
			f := r.satisfied(q, suite, results, decided)
			if !f.ok {
				return f, nil
			}
			said = f.reason
		}
	}
	return pass("%s", said)
}

// clockSkew is how far the clocks of two machines may be apart.
const clockSkew = 5 * time.Minute

// decide is what a result means by the rules' waivers. That an image's own tests
// declare a failure as expected waives nothing.
func (r Request) decide(result meta.Result) meta.Decision {
	if result.Verdict == nil {
		return meta.Decision{State: meta.Untested, Reason: result.Problem}
	}
	v := *result.Verdict
	v.Cases = meta.ApplyWaivers(v.Cases, r.Rules.For(r.To), r.To.System, r.now())
	if v.Runner.Name != meta.RunnerReFrame {
		for i := range v.Cases {
			v.Cases[i].Expected = false
		}
	}
	return v.Decide(r.now())
}

func evidenceOf(result meta.Result, d meta.Decision) Evidence {
	e := Evidence{Digest: result.Descriptor.Digest, System: result.System, State: d.State, Reason: d.Reason, Tests: d.Counts}
	if !result.When.IsZero() {
		e.When = meta.FormatTime(result.When)
	}
	if result.Verdict != nil {
		e.Suite = result.Verdict.Suite
	}
	return e
}

// satisfied finds the newest result on the destination's system, of a suite
// unless that is "", and compares it with a requirement.
func (r Request) satisfied(q Requirement, suite string, results []meta.Result, decided []meta.Decision) finding {
	target := r.To.System + "%" + r.To.UArch
	where := "on " + target
	if suite != "" {
		where = fmt.Sprintf("of suite %s on %s", suite, target)
	}
	newest := slices.IndexFunc(results, func(x meta.Result) bool {
		return !x.JUnit && x.System == r.To.System && (suite == "" || x.Verdict != nil && x.Verdict.Suite == suite)
	})
	if newest < 0 {
		reason := "no test results " + where
		if slices.ContainsFunc(results, func(x meta.Result) bool { return x.JUnit }) {
			reason += " (a JUnit report is attached, which counts as untested)"
		}
		return finding{reason: reason, hint: fmt.Sprintf("run 'uenv-ci test %s' on %s first", r.From, r.To.System)}
	}
	v, d := results[newest].Verdict, decided[newest]
	switch age := r.now().Sub(results[newest].When); {
	case v == nil:
		return finding{reason: fmt.Sprintf("the newest test results %s cannot be used: %s", where, d.Reason)}
	case age < -clockSkew: // they would stay the newest for ever
		return finding{reason: fmt.Sprintf("the newest test results %s claim to be from %s, which is in the future", where, meta.FormatTime(results[newest].When))}
	case v.UArch != "" && v.UArch != r.To.UArch:
		return finding{reason: fmt.Sprintf("the newest test results on %s are for %s, not for %s", r.To.System, v.UArch, r.To.UArch)}
	case d.State == meta.Untested:
		return finding{reason: fmt.Sprintf("untested %s: %s", where, d.Reason)}
	case d.State != meta.Pass && d.State != meta.Waived:
		return finding{reason: fmt.Sprintf("tests failed %s: %s%s", where, d.Reason, r.whyNotWaived(v, d))}
	case d.Counts.Passed == 0:
		return finding{reason: fmt.Sprintf("no test passed %s: %s", where, d.Reason)}
	case d.Counts.Ran() < q.MinTests:
		return finding{reason: fmt.Sprintf("%d tests ran %s, and %d must", d.Counts.Ran(), where, q.MinTests)}
	case q.MaxAge > 0 && age > q.MaxAge:
		return finding{reason: fmt.Sprintf("the test results %s are %d days old, more than %d", where, age/(24*time.Hour), q.MaxAge/(24*time.Hour))}
	}
	return finding{ok: true, reason: fmt.Sprintf("%s %s: %s", d.State, where, d.Reason)}
}

// whyNotWaived explains that a waiver of the site has expired, or why a verdict that
// says "waived" is not accepted.
func (r Request) whyNotWaived(v *meta.Verdict, d meta.Decision) string {
	for _, c := range v.Cases {
		for _, w := range r.Rules.For(r.To) {
			if c.Outcome == meta.Failed && w.Until != nil && w.Until.Over(r.now()) && w.Covers(c.Name, r.To.System, w.Until.Time) {
				return fmt.Sprintf("; the waiver of %s ended on %s", w.Test, w.Until)
			}
		}
	}
	if v.State == meta.Waived && d.State == meta.Fail {
		return "; the waivers that the results bring along do not count, only those of a site file given by --site"
	}
	return ""
}

// free checks that the name is free or already names the image.
func (r Request) free(ctx context.Context, d *Decision) (finding, error) {
	now, err := r.Target.Resolve(ctx, r.To.Tag)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return pass("%s is free", r.To)
	case err != nil:
		return finding{}, err
	}
	d.occupant = now.Digest
	if now.Digest != r.Image.Digest {
		f, _ := refuse("%s is another image already, %s", r.To, now.Digest)
		f.hint = "released names stay what they are: choose another tag"
		return f, nil
	}
	return pass("%s is this image already", r.To)
}
