package slurm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// Slurm's commands get what they need to reach their controller, and nothing else.
func TestEnviron(t *testing.T) {
	c := Client{Environ: []string{
		"PATH=/bin", "SLURM_CONF=/etc/x", "SLURM_JWT=token", "SLURM_JOB_ID=1", "SBATCH_WAIT=1", "UENV_CI_REGISTRY_PASSWORD=hush", "CI_JOB_TOKEN=hush",
	}}
	if got := c.environ(); !slices.Equal(got, []string{"PATH=/bin", "SLURM_CONF=/etc/x", "SLURM_JWT=token"}) {
		t.Errorf("got %v", got)
	}
}

// Nothing in a job sees the token, not even by the script's process.
func TestGuarded(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(guarded("#!/bin/sh\necho \"$0 $SLURM_JWT $OTHER\"\ncat /proc/$$/environ\n")), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"SLURM_JWT=hush", "SLURM_JWT=", "NONE=1"} {
		out, err := proc.Cmd{Path: script, Env: []string{"PATH=/usr/bin:/bin", "OTHER=kept", token}}.Output(t.Context())
		if err != nil || !strings.HasPrefix(string(out), script+"  kept\n") || strings.Contains(string(out), "JWT") {
			t.Errorf("%s: %q, %v", token, out, err)
		}
	}
}

// Without a controller Slurm's own commands try for long.
func TestPatience(t *testing.T) {
	if _, ok := proc.Look("squeue"); !ok {
		t.Skip("no squeue: apt-get install slurm-client")
	}
	c := Client{Patience: 100 * time.Millisecond, Environ: []string{"SLURM_CONF=" + filepath.Join(t.TempDir(), "none.conf")}}
	_, err := c.List(t.Context())
	if fault.KindOf(err) != fault.Network || fault.HintOf(err) == "" || !strings.Contains(err.Error(), "squeue has not answered within 100ms") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stopped"))
	if _, err := c.Status(ctx, "1"); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("got %v", err)
	}
}
