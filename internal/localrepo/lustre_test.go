package localrepo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// TestStripe has a directory pass for Lustre. The program in place of lfs notes
// how it was called and prints nothing, as lfs setstripe does.
func TestStripe(t *testing.T) {
	bin := t.TempDir()
	calls := filepath.Join(bin, "calls")
	script := "#!/bin/sh\necho \"$@\" >>" + calls + "\n"
	if err := os.WriteFile(filepath.Join(bin, "lfs"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/bin:/usr/bin")
	r := open(t, t.TempDir())
	lock, err := r.Lock(t.Context(), digest.FromString("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	stage, err := r.Stage(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Abort()
	stage.Stripe(t.Context())
	if _, err := os.Stat(calls); err == nil {
		t.Error("lfs was called although this is not Lustre")
	}
	r.fsType = func(string) int64 { return lustreMagic }
	stage.Stripe(t.Context())
	r.stripes = Striping{Count: -1, Size: 1 << 20}
	stage.Stripe(t.Context())
	r.stripes = Striping{Off: true}
	stage.Stripe(t.Context())
	got, err := os.ReadFile(calls)
	want := "setstripe --stripe-size 4194304 --stripe-count 32 " + stage.Dir() + "\n" +
		"setstripe --stripe-size 1048576 --stripe-count -1 " + stage.Dir() + "\n"
	if err != nil || string(got) != want {
		t.Errorf("called %q, want %q; %v", got, want, err)
	}
}

func TestStripeThatFailsIsNoReasonToStop(t *testing.T) {
	r := open(t, t.TempDir())
	r.fsType = func(string) int64 { return lustreMagic }
	var told []event.Event
	r.events = func(e event.Event) { told = append(told, e) }
	s := &Stage{repo: r, dir: r.Dir()}
	t.Setenv("PATH", t.TempDir())
	s.Stripe(t.Context()) // no lfs
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "lfs"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	s.Stripe(t.Context())
	if len(told) != 2 || told[0].Kind != event.Info || told[1].Kind != event.Warning {
		t.Errorf("told %+v", told)
	}
}

func TestParseStriping(t *testing.T) {
	for text, want := range map[string]Striping{
		"": {}, "off": {Off: true}, "8": {Count: 8}, "all": {Count: -1}, "32x4M": {Count: 32, Size: 4 << 20}, "allx1G": {Count: -1, Size: 1 << 30},
		"1x65536": {Count: 1, Size: 64 << 10}, "2x64K": {Count: 2, Size: 64 << 10},
	} {
		if got, err := ParseStriping(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"0", "-1", "x", "x4M", "4x", "4xM", "4x100", "4x4T", "4x5G", "9999", "many", "4 x 4M", "4x-64K", "4x99999999999999999999"} {
		if got, err := ParseStriping(text); fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
