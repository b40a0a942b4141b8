package build_test

import (
	"os"
	"testing"
	"time"

	"uenv-ci.dev/internal/build"
)

// TestHookHangs: the deadline ends a hook, and nothing is left of the build.
func TestHookHangs(t *testing.T) {
	needSpack(t)
	o := options(t, changed(t, map[string]string{"pre-install": "#!/bin/sh\nsleep 1000 & sleep 1000\n"}))
	o.Limits.Deadline = time.Now().Add(4 * time.Second)
	_, err := build.Run(t.Context(), o)
	if classOf(err) != "timeout" {
		t.Errorf("class %q: %v", classOf(err), err)
	}
	entries, err := os.ReadDir(o.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if left, _ := os.ReadDir(o.Root + "/" + e.Name()); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}
