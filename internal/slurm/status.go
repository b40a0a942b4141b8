package slurm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/proc"
)

// State is a job's state as Slurm calls it.
type State string

// The states that are told apart.
const (
	Pending     State = "PENDING"
	Running     State = "RUNNING"
	Completing  State = "COMPLETING" // over, but for what comes after it
	Completed   State = "COMPLETED"
	Failed      State = "FAILED"
	Cancelled   State = "CANCELLED"
	Timeout     State = "TIMEOUT"
	Deadline    State = "DEADLINE"
	OutOfMemory State = "OUT_OF_MEMORY"
	NodeFail    State = "NODE_FAIL"
	BootFail    State = "BOOT_FAIL"
	Preempted   State = "PREEMPTED"
	Revoked     State = "REVOKED"
	// Unknown is that of a job that Slurm has forgotten.
	Unknown State = "UNKNOWN"
)

// Ended tells whether a job has come to its end.
func (s State) Ended() bool {
	return s == Completed || s == Failed || s == Unknown || s.FromOutside()
}

// Infrastructure tells whether a job was ended by something that says nothing about
// what it did; another attempt may go well.
func (s State) Infrastructure() bool {
	return s == OutOfMemory || s == NodeFail || s == BootFail || s == Preempted
}

// FromOutside tells whether a job was ended by something else than its script.
func (s State) FromOutside() bool {
	return s == Cancelled || s == Timeout || s == Deadline || s == Revoked || s.Infrastructure()
}

// Status is what Slurm says of a job.
type Status struct {
	ID        string  `json:"id"`
	State     State   `json:"state"`
	Reason    string  `json:"reason,omitempty"` // why it waits, or ended as it did
	Partition string  `json:"partition,omitempty"`
	Nodes     string  `json:"nodes,omitempty"`     // "" if it never ran
	ExitCode  string  `json:"exit_code,omitempty"` // EXIT:SIGNAL
	Elapsed   float64 `json:"seconds"`             // since it started
}

// String tells of the job in a few words.
func (s Status) String() string {
	text := "job " + s.ID
	if s.Nodes != "" {
		text += " on " + s.Nodes
	}
	text += ": " + string(s.State)
	if s.Reason != "" {
		text += " (" + s.Reason + ")"
	}
	return text
}

// never are the reasons for which a waiting job waits in vain: what it asks for is not
// allowed or does not exist.
var never = []string{
	"BadConstraints", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS", "JobArrayTaskLimitInvalid",
	"PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit",
	"AssocMaxCpuPerJobLimit", "AssocMaxNodePerJobLimit", "AssocMaxWallDurationPerJobLimit",
	"QOSMaxCpuPerJobLimit", "QOSMaxNodePerJobLimit", "QOSMaxWallDurationPerJobLimit", "QOSMinCpuNotSatisfied",
}

// Hopeless tells whether the job waits for what will not come.
func (s Status) Hopeless() bool { return s.State == Pending && slices.Contains(never, s.Reason) }

// Held tells whether the job waits until somebody releases it.
func (s Status) Held() bool { return s.State == Pending && strings.HasPrefix(s.Reason, "JobHeld") }

// Killed tells whether the job's script was killed outright, as where memory runs out on
// clusters without a state for that.
func (s Status) Killed() bool { return s.State == Failed && s.ExitCode == "0:9" }

// NoFiles tells whether the node could not use the job's directory or its log.
func (s Status) NoFiles() bool { return s.State == Failed && s.ExitCode == "0:53" }

// ShouldHaveEnded tells whether the job's script has come to its end.
func (s Status) ShouldHaveEnded() bool {
	return s.State == Completed || s.State == Completing || s.State == Unknown || s.State == Failed && strings.HasSuffix(s.ExitCode, ":0")
}

// Status asks what has become of a job. One that the controller has forgotten is looked
// up in the accounting, where there is any; else its state is Unknown.
func (c Client) Status(ctx context.Context, id string) (Status, error) {
	out, err := c.run(ctx, proc.Cmd{Path: "scontrol", Args: []string{"--oneliner", "show", "job", id}, Env: c.environ()})
	if errors.Is(err, errUnknown) {
		return c.accounted(ctx, id)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask for job %s: %w", id, err)
	}
	s := parseStatus(out)
	if s.ID != id || s.State == "" {
		return Status{}, fmt.Errorf("ask for job %s: scontrol said something else than its state", id)
	}
	return s, nil
}

var pair = regexp.MustCompile(`(?:^|\s)(JobId|JobState|Reason|ExitCode|RunTime|Partition|NodeList)=(\S*)`)

// parseStatus reads a line of scontrol show job. Names and comments that people choose
// may hold anything, but the first of each of these is Slurm's own.
func parseStatus(line string) Status {
	var s Status
	values := map[string]string{}
	for _, m := range pair.FindAllStringSubmatch(line, -1) {
		if _, ok := values[m[1]]; !ok {
			values[m[1]] = m[2]
		}
	}
	s.ID, s.State, s.Reason, s.ExitCode = values["JobId"], State(values["JobState"]), given(values["Reason"]), values["ExitCode"]
	s.Partition, s.Nodes = given(values["Partition"]), given(values["NodeList"])
	if d, ok := parseTime(values["RunTime"]); ok {
		s.Elapsed = d.Seconds()
	}
	return s
}

// given returns a value that is none of Slurm's words for nothing.
func given(value string) string {
	if slices.Contains([]string{"(null)", "None", "N/A", "None assigned"}, value) {
		return ""
	}
	return value
}

// accounted asks the accounting for a job.
func (c Client) accounted(ctx context.Context, id string) (Status, error) {
	unknown := Status{ID: id, State: Unknown}
	if _, ok := proc.Look("sacct"); !ok {
		return unknown, nil
	}
	out, err := c.run(ctx, proc.Cmd{
		Path: "sacct", Args: []string{"--allocations", "--noheader", "--parsable2", "--jobs=" + id, "--format=JobIDRaw,State,ExitCode,NodeList,ElapsedRaw,Partition"}, Env: c.environ(),
	})
	if ctx.Err() != nil {
		return Status{}, err
	}
	if err != nil {
		return unknown, nil // accounting is an extra, which many clusters lack
	}
	if s, ok := parseAccounted(out); ok && s.ID == id {
		return s, nil
	}
	return unknown, nil
}

// parseAccounted reads a line of sacct. It calls a state "CANCELLED by 1000".
func parseAccounted(out string) (Status, bool) {
	line, _, _ := strings.Cut(out, "\n")
	f := strings.Split(line, "|")
	if len(f) != 6 {
		return Status{}, false
	}
	state, by, _ := strings.Cut(f[1], " ")
	s := Status{ID: f[0], State: State(state), Reason: by, ExitCode: f[2], Nodes: given(f[3]), Partition: f[5]}
	if seconds, err := strconv.ParseUint(f[4], 10, 32); err == nil {
		s.Elapsed = float64(seconds)
	}
	return s, true
}
