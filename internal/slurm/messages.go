package slurm

import (
	"fmt"
	"regexp"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// message is something that Slurm's commands say when they fail, and what it means.
type message struct {
	pattern *regexp.Regexp
	kind    fault.Kind
	hint    string
}

// messages are tried in this order. The texts are those of slurm_strerror and of
// sbatch's checks of its options.
var messages = []message{
	{regexp.MustCompile(`(?i)unable to contact slurm controller|socket timed out|connection (refused|timed out)|zero bytes were transmitted|transport endpoint|fully unreachable|communication connection failure`), fault.Network, noController},
	{regexp.MustCompile(`(?i)could not establish a configuration source|fetch_config|unable to open slurm.conf|DNS SRV`), fault.Network,
		"there is no Slurm configuration: set SLURM_CONF, or use a node of the cluster"},
	{regexp.MustCompile(`MaxSubmitJob`), fault.Network, "you have as many jobs as you may have: a retry helps when some of them have ended"},
	{regexp.MustCompile(`(?i)temporarily unable to accept|in maintenance|resource temporarily unavailable`), fault.Network, "a retry may help"},
	{regexp.MustCompile(`(?i)authentication error|munge|invalid authentication credential|access/permission denied|user not found on host`), fault.Unauthorized,
		"Slurm does not accept who you are: is munge running, and may you use this cluster?"},
	{regexp.MustCompile(`(?i)job (violates accounting|submit limit)|QOS.*limit|AssocMax`), fault.Refused,
		"your account or quality of service does not allow the job: see the limits by 'sacctmgr show assoc', and --slurm account=, qos="},
	{regexp.MustCompile(`(?i)invalid|unrecognized option|can not be satisfied|is not available|not permitted|more processors requested|requested (node|time)`), fault.Usage,
		"check the settings of --slurm, SBATCH_* and SLURM_* variables and the matrix; 'sinfo' lists partitions, 'scontrol show node' features"},
}

// unknownJob is what is said of a job that was forgotten, or never was.
var unknownJob = regexp.MustCompile(`(?i)invalid job id specified|job/step already completing or completed`)

// explain turns what a command said into an error.
func explain(command, stderr string) error {
	said := summary(stderr)
	if unknownJob.MatchString(said) {
		return fmt.Errorf("%s: %w", command, errUnknown)
	}
	for _, m := range messages {
		if m.pattern.MatchString(stderr) {
			return fault.WithHint(fault.New(m.kind, "%s: %s", command, said), "%s", m.hint)
		}
	}
	return fault.New(fault.Failure, "%s: %s", command, said)
}

// summary returns the last line that is no advice, and of two the other, which is more
// exact, behind it.
func summary(stderr string) string {
	var said []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "Try ") {
			continue
		}
		for _, prefix := range []string{"sbatch: ", "scancel: ", "squeue: ", "scontrol: ", "sacct: ", "error: ", "fatal: ", "slurm_load_jobs error: ", "Batch job submission failed: "} {
			line = strings.TrimPrefix(line, prefix)
		}
		said = append(said, line)
	}
	switch len(said) {
	case 0:
		return "it failed without a word"
	case 2:
		return said[1] + " (" + said[0] + ")"
	}
	return said[len(said)-1]
}
