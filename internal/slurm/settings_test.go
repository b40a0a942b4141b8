package slurm

import (
	"maps"
	"slices"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

func TestFromVariables(t *testing.T) {
	environ := map[string]string{
		"SLURM_PARTITION": "normal", "SLURM_ACCOUNT": "csstaff", "SBATCH_ACCOUNT": "own", "SLURM_CONSTRAINT": "mc", "SLURM_TIMELIMIT": "180",
		"SLURM_CPUS_PER_TASK": "64", "SLURM_JOB_NUM_NODES": "2", "SBATCH_EXCLUSIVE": "1", "SLURM_QOS": "", "SBATCH_WAIT": "1", "SBATCH_EXPORT": "ALL",
	}
	want := Settings{"partition": "normal", "account": "own", "constraint": "mc", "time": "180", "cpus-per-task": "64", "nodes": "2", "exclusive": ""}
	get := func(name string) string { return environ[name] }
	if got := FromVariables(get); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	// In a job some of them are of that job.
	environ["SLURM_JOB_ID"] = "1"
	delete(want, "cpus-per-task")
	delete(want, "nodes")
	if got := FromVariables(get); !maps.Equal(got, want) {
		t.Errorf("in a job: got %v", got)
	}
}

func TestParse(t *testing.T) {
	got, err := Parse([]string{"partition=debug", "constraint=gpu&nvme", "gres=gpu:1,shard:2", "exclusive"})
	want := Settings{"partition": "debug", "constraint": "gpu&nvme", "gres": "gpu:1,shard:2", "exclusive": ""}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	args := []string{"--constraint=gpu&nvme", "--exclusive", "--gres=gpu:1,shard:2", "--partition=debug"}
	if !slices.Equal(got.args(), args) {
		t.Errorf("got %v", got.args())
	}
	for _, wrong := range []string{"array=1-9", "export=ALL", "partition=", "partition", "=x", "-p", "wrap=rm"} {
		if _, err := Parse([]string{wrong}); fault.KindOf(err) != fault.Usage {
			t.Errorf("%s: got %v", wrong, err)
		}
	}
}

func TestOver(t *testing.T) {
	got := Settings{"time": "10"}.Over(Settings{"time": "20", "account": "a"})
	if !maps.Equal(got, Settings{"time": "10", "account": "a"}) {
		t.Errorf("got %v", got)
	}
	if got := (Settings{"time": "10"}).Over(nil); !maps.Equal(got, Settings{"time": "10"}) {
		t.Errorf("got %v", got)
	}
}

// The forms that sbatch's manual lists for --time.
func TestLimit(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"180": 3 * time.Hour, "10:30": 10*time.Minute + 30*time.Second, "00:30:00": 30 * time.Minute, "1-0": 24 * time.Hour,
		"2-3:04": 51*time.Hour + 4*time.Minute, "1-02:03:04": 26*time.Hour + 3*time.Minute + 4*time.Second, "0": 0,
	} {
		if got, ok := (Settings{"time": text}).Limit(); !ok || got != want {
			t.Errorf("%s: got %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "UNLIMITED", "1h", "1:2:3:4", "-1", "1-", "1-2:3:4:5", "99999999999"} {
		if got, ok := (Settings{"time": text}).Limit(); ok {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestSuspicious(t *testing.T) {
	for text, want := range map[string]string{"1800": "30m0s", "10800": "3h0m0s", "180": "", "500": "", "1440": "", "1501": "", "00:30:00": ""} {
		if got, _ := (Settings{"time": text}).Suspicious(); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
