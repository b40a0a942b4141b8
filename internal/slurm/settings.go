package slurm

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
)

// Settings say where and how a job runs: options of sbatch by their long names,
// such as partition or time. A flag such as exclusive has the value "".
type Settings map[string]string

// setting is an option of sbatch that may be set, and the variables that set it: those
// of sbatch itself, and those by which CI systems tell their runners. Slurm sets some of
// the latter in its jobs too; what they say of a job that we are in says nothing about
// one that we submit.
type setting struct {
	sbatch string
	field  string
	ofJobs bool
}

var known = map[string]setting{
	"account":          {"SBATCH_ACCOUNT", "SLURM_ACCOUNT", false},
	"constraint":       {"SBATCH_CONSTRAINT", "SLURM_CONSTRAINT", false},
	"cpus-per-task":    {"", "SLURM_CPUS_PER_TASK", true},
	"exclusive":        {"SBATCH_EXCLUSIVE", "SLURM_EXCLUSIVE", false},
	"gpus":             {"SBATCH_GPUS", "SLURM_GPUS", true},
	"gpus-per-node":    {"SBATCH_GPUS_PER_NODE", "SLURM_GPUS_PER_NODE", true},
	"gpus-per-task":    {"SBATCH_GPUS_PER_TASK", "SLURM_GPUS_PER_TASK", true},
	"gres":             {"SBATCH_GRES", "SLURM_GRES", false},
	"hint":             {"SBATCH_HINT", "SLURM_HINT", true},
	"mem":              {"SBATCH_MEM_PER_NODE", "SLURM_MEM_PER_NODE", true},
	"mem-per-cpu":      {"SBATCH_MEM_PER_CPU", "SLURM_MEM_PER_CPU", true},
	"nodes":            {"", "SLURM_JOB_NUM_NODES", true},
	"ntasks":           {"", "SLURM_NTASKS", true},
	"ntasks-per-node":  {"", "SLURM_NTASKS_PER_NODE", true},
	"partition":        {"SBATCH_PARTITION", "SLURM_PARTITION", false},
	"qos":              {"SBATCH_QOS", "SLURM_QOS", false},
	"reservation":      {"SBATCH_RESERVATION", "SLURM_RESERVATION", false},
	"threads-per-core": {"SBATCH_THREADS_PER_CORE", "SLURM_THREADS_PER_CORE", true},
	"time":             {"SBATCH_TIMELIMIT", "SLURM_TIMELIMIT", false},
}

// Names returns the options that may be set, sorted.
func Names() []string { return slices.Sorted(maps.Keys(known)) }

// FromVariables returns the settings that variables make; sbatch's own go before those
// of CI systems.
func FromVariables(get func(name string) string) Settings {
	s := Settings{}
	inJob := get("SLURM_JOB_ID") != ""
	for name, k := range known {
		value := ""
		if k.sbatch != "" {
			value = get(k.sbatch)
		}
		if value == "" && (!inJob || !k.ofJobs) {
			value = get(k.field)
		}
		if value == "" {
			continue
		}
		if name == "exclusive" && !slices.Contains([]string{"user", "mcs"}, value) {
			value = "" // set to anything it means all of the node
		}
		s[name] = value
	}
	return s
}

// Parse reads settings as NAME=VALUE, or NAME for what needs no value.
func Parse(texts []string) (Settings, error) {
	s := Settings{}
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		if _, ok := known[name]; !ok {
			err := fault.New(fault.Usage, "there is no setting %q of Slurm jobs", name)
			return nil, fault.WithHint(err, "NAME=VALUE, where NAME is one of %s", strings.Join(Names(), ", "))
		}
		if value == "" && name != "exclusive" {
			return nil, fault.New(fault.Usage, "the setting %s of Slurm jobs needs a value, as in %s=VALUE", name, name)
		}
		s[name] = value
	}
	return s, nil
}

// Over returns the settings with those of below where they say nothing.
func (s Settings) Over(below Settings) Settings {
	merged := maps.Clone(below)
	if merged == nil {
		merged = Settings{}
	}
	maps.Copy(merged, s)
	return merged
}

// args returns the options for sbatch.
func (s Settings) args() []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if s[name] == "" {
			args = append(args, "--"+name)
		} else {
			args = append(args, "--"+name+"="+s[name])
		}
	}
	return args
}

// Limit returns the time limit, false if none is set or it is none that Slurm knows.
func (s Settings) Limit() (time.Duration, bool) { return parseTime(s["time"]) }

// Suspicious tells whether the time limit looks like one that YAML has made seconds of:
// 00:30:00 without quotes is the number 1800, which Slurm takes for minutes.
func (s Settings) Suspicious() (string, bool) {
	minutes, err := strconv.Atoi(s["time"])
	if err != nil || minutes <= 24*60 || minutes%60 != 0 {
		return "", false
	}
	return (time.Duration(minutes) * time.Second).String(), true
}

// parseTime reads a time as Slurm writes and reads it: minutes, minutes:seconds,
// hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds.
func parseTime(text string) (time.Duration, bool) {
	days, clock, hasDays := strings.Cut(text, "-")
	if !hasDays {
		days, clock = "0", text
	}
	units := map[int][]time.Duration{
		1: {time.Minute}, 2: {time.Minute, time.Second}, 3: {time.Hour, time.Minute, time.Second},
	}
	fields := strings.Split(clock, ":")
	if hasDays {
		units = map[int][]time.Duration{1: {time.Hour}, 2: {time.Hour, time.Minute}, 3: units[3]}
	}
	sum := time.Duration(0)
	for i, field := range append([]string{days}, fields...) {
		unit, bits := 24*time.Hour, 15 // so that the sum is one that fits
		if len(fields) > 3 {
			return 0, false
		}
		if i > 0 {
			unit, bits = units[len(fields)][i-1], 20
		}
		n, err := strconv.ParseUint(field, 10, bits)
		if err != nil {
			return 0, false
		}
		sum += time.Duration(n) * unit
	}
	return sum, true
}
