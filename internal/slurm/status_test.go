package slurm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

func recorded(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// testdata/README.md says how each was recorded.
func TestStatus(t *testing.T) {
	for name, want := range map[string]Status{
		"completed":         {ID: "1", State: Completed, Partition: "normal", Nodes: "nid001", ExitCode: "0:0", Elapsed: 2},
		"failed":            {ID: "3", State: Failed, Reason: "NonZeroExitCode", Partition: "normal", Nodes: "nid001", ExitCode: "3:0"},
		"killed":            {ID: "4", State: Failed, Reason: "JobLaunchFailure", Partition: "normal", Nodes: "nid001", ExitCode: "0:9"},
		"no-directory":      {ID: "2", State: Failed, Reason: "JobLaunchFailure", Partition: "normal", Nodes: "nid001", ExitCode: "0:53"},
		"cancelled":         {ID: "19", State: Cancelled, Partition: "normal", Nodes: "nid001", ExitCode: "0:0", Elapsed: 1},
		"cancelled-waiting": {ID: "8", State: Cancelled, Reason: "PartitionTimeLimit", Partition: "normal", ExitCode: "0:0"},
		"timeout":           {ID: "5", State: Timeout, Reason: "TimeLimit", Partition: "normal", Nodes: "nid001", ExitCode: "0:15", Elapsed: 64},
		"deadline":          {ID: "21", State: Deadline, Reason: "DeadLine", Partition: "normal", ExitCode: "0:1"},
		"node-fail":         {ID: "20", State: NodeFail, Reason: "NodeDown", Partition: "normal", Nodes: "nid002", ExitCode: "143:0", Elapsed: 1},
		"hopeless":          {ID: "25", State: Pending, Reason: "PartitionTimeLimit", Partition: "normal", ExitCode: "0:0"},
		"held":              {ID: "23", State: Pending, Reason: "JobHeldUser", Partition: "normal", ExitCode: "0:0"},
	} {
		got := parseStatus(recorded(t, name+".txt"))
		if got != want {
			t.Errorf("%s: got %#v, want %#v", name, got, want)
		}
		waits := name == "hopeless" || name == "held"
		if got.State.Ended() == waits || got.Hopeless() != (name == "hopeless") || got.Held() != (name == "held") {
			t.Errorf("%s: ended %v, hopeless %v, held %v", name, got.State.Ended(), got.Hopeless(), got.Held())
		}
		if got.State.Infrastructure() != (name == "node-fail") {
			t.Errorf("%s: infrastructure %v", name, got.State.Infrastructure())
		}
	}
	for name, want := range map[string]State{"running": Running, "completing": Completing} {
		if got := parseStatus(recorded(t, name+".txt")); got.State != want || got.State.Ended() {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// States of the documentation of squeue that could not be provoked: what Slurm calls
// them, and what they mean for us.
func TestStates(t *testing.T) {
	for state, infrastructure := range map[State]bool{
		"OUT_OF_MEMORY": true, "BOOT_FAIL": true, "PREEMPTED": true, "NODE_FAIL": true, "DEADLINE": false, "REVOKED": false,
	} {
		if !state.Ended() || state.Infrastructure() != infrastructure {
			t.Errorf("%s: ended %v, infrastructure %v", state, state.Ended(), state.Infrastructure())
		}
	}
	for _, state := range []State{"PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "STOPPED", "REQUEUED"} {
		if state.Ended() {
			t.Errorf("%s has ended", state)
		}
	}
}

func TestAccounted(t *testing.T) {
	lines := strings.SplitAfter(recorded(t, "sacct.txt"), "\n")
	for i, want := range []Status{
		{ID: "1", State: Failed, ExitCode: "0:9", Nodes: "nid001", Elapsed: 1, Partition: "normal"},
		{ID: "2", State: Failed, ExitCode: "3:0", Nodes: "nid001", Partition: "normal"},
		{ID: "3", State: Cancelled, Reason: "by 0", ExitCode: "0:0", Nodes: "nid001", Elapsed: 2, Partition: "normal"},
	} {
		if got, ok := parseAccounted(lines[i]); !ok || got != want {
			t.Errorf("got %+v, %v, want %+v", got, ok, want)
		}
	}
	if _, ok := parseAccounted(""); ok {
		t.Error("nothing is a job")
	}
}

// Recorded from the commands named, Slurm 22.05.8.
func TestMessages(t *testing.T) {
	for said, want := range map[string]fault.Kind{
		// sbatch --parsable OPTION < script
		"sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n":                                                  fault.Usage, // -p nope
		"sbatch: error: Batch job submission failed: Invalid feature specification\n":                                                                                                       fault.Usage, // -C nope
		"sbatch: error: Batch job submission failed: Requested reservation is invalid\n":                                                                                                    fault.Usage, // --reservation=x
		"sbatch: error: Invalid --time specification\n":                                                                                                                                     fault.Usage, // --time=bla
		"sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node configuration is not available\n":                             fault.Usage, // --mem=100G
		"sbatch: error: Invalid generic resource (gres) specification\n":                                                                                                                    fault.Usage, // --gres=gpu:1
		"sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n":                                                                          fault.Usage, // -A nope, with accounting
		"sbatch: unrecognized option '--wrong'\nTry \"sbatch --help\" for more information\n":                                                                                               fault.Usage, // --wrong
		"sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n":                                                                                fault.Network,
		"sbatch: error: slurm_send_node_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error\nsbatch: error: Batch job submission failed: Protocol authentication error\n": fault.Unauthorized, // SLURM_JWT=x
		// with accounting, as a user who may have two jobs and has
		"sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n": fault.Network,
		// without slurm.conf
		"sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\nsbatch: error: fetch_config: DNS SRV lookup failed\nsbatch: error: _establish_config_source: failed to fetch config\nsbatch: fatal: Could not establish a configuration source\n": fault.Network,
		// scontrol show job 1, squeue: no controller
		"slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n": fault.Network,
		// scancel 3
		"scancel: error: Kill job error on job id 3: Unable to contact slurm controller (connect failure)\n": fault.Network,
		"something else\n": fault.Failure,
		"":                 fault.Failure,
	} {
		err := explain("sbatch", said)
		if fault.KindOf(err) != want || want != fault.Failure && fault.HintOf(err) == "" {
			t.Errorf("%q: kind %v, hint %q", said, fault.KindOf(err), fault.HintOf(err))
		}
		if strings.HasPrefix(err.Error(), "sbatch: error:") || strings.Contains(err.Error(), "sbatch: sbatch") || strings.Contains(err.Error(), "\n") || strings.HasSuffix(err.Error(), ": ") {
			t.Errorf("said as %q", err)
		}
	}
	if err := explain("sbatch", "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n"); err.Error() != "sbatch: Invalid partition name specified (invalid partition specified: nope)" {
		t.Errorf("got %v", err)
	}
	// scontrol show job 999
	if err := explain("scontrol", "slurm_load_jobs error: Invalid job id specified\n"); !errors.Is(err, errUnknown) {
		t.Errorf("got %v", err)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add("JobId=1 JobName=x JobState=RUNNING Reason=None RunTime=1-00:00:01")
	f.Add("JobId=1 JobState=RUNNING RunTime=32767-1048575:00:00")
	f.Add("7|FAILED|0:9|n|55555555555555|p")
	f.Add("3|CANCELLED by 0|0:0|nid001|2|normal")
	f.Fuzz(func(t *testing.T, text string) {
		s := parseStatus(text)
		if s.Elapsed < 0 {
			t.Errorf("%q: %+v", text, s)
		}
		if a, ok := parseAccounted(text); ok && a.Elapsed < 0 {
			t.Errorf("%q: %+v", text, a)
		}
	})
}

func TestJudge(t *testing.T) {
	running := Status{ID: "7", State: Running, Elapsed: 61}
	for name, c := range map[string]struct {
		status   Status
		limit    time.Duration
		hopeless int
		over     time.Time
		done     bool
		kind     fault.Kind
	}{
		"runs":               {status: running},
		"runs within limits": {status: running, limit: 62 * time.Second},
		"runs too long":      {status: running, limit: time.Minute, done: true, kind: fault.Untested},
		"waits in vain":      {status: Status{ID: "7", State: Pending, Reason: "PartitionTimeLimit"}, hopeless: 4, done: true, kind: fault.Untested},
		"may be rescheduled": {status: Status{ID: "7", State: Pending, Reason: "PartitionTimeLimit"}, hopeless: 1},
		"ended":              {status: Status{ID: "7", State: NodeFail}, done: true},
		"is cleaned up":      {status: Status{ID: "7", State: Completing}, over: time.Now()},
		"hangs at the end":   {status: Status{ID: "7", State: Completing}, over: time.Now().Add(-time.Hour), done: true},
	} {
		done, err := c.status.judge(Watch{Limit: c.limit}, c.hopeless, c.over)
		if done != c.done || (err != nil) != (c.kind != fault.Failure) || err != nil && fault.KindOf(err) != c.kind {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
}
