package pipeline

import (
	"net/http"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registrytest"
)

// TestPublishOnceMore: a registry that fails for longer than requests are repeated is
// tried a second time, and no document is attached twice. Each request is tried
// twice, and a manifest after the image's is one of what is attached.
func TestPublishOnceMore(t *testing.T) {
	for name, c := range map[string]struct {
		rule    registrytest.Rule
		retried bool
		kind    fault.Kind // of the error; 0 for none
	}{
		"image":          {registrytest.Rule{Method: http.MethodPut, Path: "/manifests/", Times: 2, Fault: registrytest.Status(503)}, true, 0},
		"packages":       {registrytest.Rule{Method: http.MethodPut, Path: "/manifests/", Skip: 3, Times: 2, Fault: registrytest.Status(503)}, true, 0},
		"tag":            {registrytest.Rule{Method: http.MethodPut, Path: "/manifests/7$", Times: 2, Fault: registrytest.Status(503)}, true, 0},
		"passes":         {registrytest.Rule{Method: http.MethodPut, Path: "/manifests/", Times: 1, Fault: registrytest.Status(503)}, false, 0},
		"does not pass":  {registrytest.Rule{Method: http.MethodPut, Path: "/manifests/", Fault: registrytest.Status(503)}, true, fault.Network},
		"is not allowed": {registrytest.Rule{Method: http.MethodPut, Path: "/manifests/", Fault: registrytest.Status(403)}, false, fault.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			reg := openRegistry(t, registrytest.Start(t, registrytest.Referrers, registrytest.Faults(c.rule)))
			b := packed(t, reg, toolsLabel, KeyOptions{})
			err := b.publish(t.Context())
			if (err != nil) != (c.kind != 0) || err != nil && fault.KindOf(err) != c.kind {
				t.Fatalf("%v (%v)", err, fault.KindOf(err))
			}
			stages := b.done.Report.Stages
			if len(stages) != 1 || stages[0].Name != publishStage || stages[0].Retried != c.retried || stages[0].Failed != (err != nil) {
				t.Errorf("stages: %+v", stages)
			}
			if err != nil {
				return
			}
			found := located(t, reg, toolsLabel)
			statements, problems, err := meta.Provenances(t.Context(), found.Repo, found.Descriptor)
			if err != nil || len(statements) != 1 || len(problems) != 0 || len(b.done.Attached) != 2 {
				t.Errorf("%d provenances, %v, %v; %+v", len(statements), problems, err, b.done.Attached)
			}
		})
	}
}
