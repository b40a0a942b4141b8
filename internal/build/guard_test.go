package build

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestDeadline(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	t.Setenv(slurmEnd, "")
	if got := (Limits{}).deadline(now); !got.IsZero() {
		t.Errorf("without any: %v", got)
	}
	for _, bad := range []string{"x", "-1", "0"} {
		t.Setenv(slurmEnd, bad)
		if got := (Limits{}).deadline(now); !got.IsZero() {
			t.Errorf("%s: %v", bad, got)
		}
	}
	t.Setenv(slurmEnd, strconv.FormatInt(now.Unix()+7200, 10))
	if got := (Limits{}).deadline(now); got != now.Add(119*time.Minute) {
		t.Errorf("two hours: %v", got)
	}
	if got := (Limits{Deadline: now.Add(100 * time.Second)}).deadline(now); got != now.Add(90*time.Second) {
		t.Errorf("100 s: %v", got)
	}
	if past := now.Add(-time.Hour); (Limits{Deadline: past}).deadline(now) != past {
		t.Error("one that is over moves")
	}
}

func TestGuardSeesTrouble(t *testing.T) {
	g := newGuard(t.TempDir(), time.Time{})
	if f := g.trouble(time.Now()); f != nil && g.storage < 1<<50 {
		t.Skipf("this machine is in trouble: %v", f)
	}
	g.memory = 1 << 60
	if f := g.trouble(time.Now()); f == nil || f.Class != classMemory || !f.retry || f.Hint == "" {
		t.Errorf("memory: %+v", f)
	}
	g.deadline = time.Now()
	if f := g.trouble(time.Now().Add(time.Second)); f == nil || f.Class != classTimeout || f.retry {
		t.Errorf("time: %+v", f)
	}
	ctx, _, leave := g.enter(t.Context())
	defer leave()
	g.stop(&Failure{Class: classDisk})
	if f, ok := context.Cause(ctx).(*Failure); !ok || f.Class != classDisk {
		t.Errorf("cause: %v", context.Cause(ctx))
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	g := newGuard(dir, time.Time{})
	g.measureStorage()
	if got := g.peaks().Storage; got < 1<<20 || got > 2<<20 {
		t.Errorf("storage: %d", got)
	}
	g.measureMemory()
	if got := g.peaks().Memory; got != 0 {
		t.Errorf("memory of no program: %d", got)
	}
	_, p, leave := g.enter(t.Context())
	defer leave()
	g.started(p, os.Getpid())
	g.measureMemory()
	if got := g.peaks().Memory; got < 1<<20 {
		t.Errorf("memory of this test: %d", got)
	}
}

func TestParseStat(t *testing.T) {
	line := "12 (a) b) S 7 12 12 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 1 0 100 5000 30 18446744073709551615"
	if p, ok := parseStat(line); !ok || p.pid != 12 || p.parent != 7 || p.resident != 30*int64(os.Getpagesize()) {
		t.Errorf("%+v, %v", p, ok)
	}
	for _, bad := range []string{"", "x", "12 (a S 7", "12 (a) S 7 1", "12 (a) S x" + line[12:]} {
		if p, ok := parseStat(bad); ok {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

func TestResidentBelow(t *testing.T) {
	all := []process{{5, 4, 16}, {4, 3, 8}, {3, 2, 4}, {2, 1, 2}, {9, 1, 100}}
	if got := residentBelow(map[int]bool{3: true}, all); got != 28 {
		t.Errorf("%d", got)
	}
}

func TestCgroup(t *testing.T) {
	top := t.TempDir()
	tree := cgroupTree{"0::", top, "max", "current", "inactive "}
	put := func(dir, limit, used string) {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"max": limit, "current": used, "memory.stat": "inactive 5\n"} {
			if err := os.WriteFile(filepath.Join(top, dir, name), []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("a/b", "max", "10")
	if got, ok := tree.available("/a/b"); ok {
		t.Errorf("no limit: %d", got)
	}
	put("a", "100", "20")
	if got, ok := tree.available("/a/b"); !ok || got != 85 {
		t.Errorf("%d, %v", got, ok)
	}
}

func TestTooLittleMemory(t *testing.T) {
	l := Limits{Previous: &Report{Peak: Peak{Memory: 1 << 60}}}
	if err := l.refuse(t.TempDir()); err == nil {
		t.Error("a build that needs an exbibyte begins")
	}
	if err := (Limits{Previous: &Report{}}).refuse(t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestKeptWorkspace(t *testing.T) {
	root := t.TempDir()
	sweepOnce := func(want int) {
		t.Helper()
		w, swept, err := openWorkspace(root, "next")
		if err != nil || len(swept) != want {
			t.Errorf("swept %q, %v", swept, err)
			return
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}
	for _, left := range []time.Duration{time.Hour, -time.Hour} {
		w, _, err := openWorkspace(root, "kept")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.keep(time.Now().Add(left)); err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(w.Dir)
		if err != nil {
			t.Error(err)
		}
		if left > 0 {
			sweepOnce(0)
			if err := os.Remove(w.Dir + keepSuffix); err != nil {
				t.Error(err)
			}
		}
		sweepOnce(1)
	}
	if names, _ := filepath.Glob(filepath.Join(root, "*", "*")); len(names) > 0 {
		t.Errorf("left: %q", names)
	}
}
